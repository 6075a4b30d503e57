"""The first part of a multipart answer, in pieces of any size."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.formats.dicomweb.multipart import IncompletePartError, boundary_of, copy_first_part


def answer_of(content, boundary, *, preamble=b"", length=False):
    header = b"Content-Type: application/dicom\r\n" + (b"Content-Length: %d\r\n" % len(content) if length else b"")
    return preamble + b"--" + boundary + b"\r\n" + header + b"\r\n" + content + b"\r\n--" + boundary + b"--\r\n"


def pieces_of(answer, sizes):
    start = 0
    for size in sizes:
        yield answer[start : start + size]
        start += size
    yield answer[start:]


contents = st.binary(max_size=300) | st.lists(
    st.sampled_from([b"\r\n", b"--", b"\r\n--b", b"b", b"x", b"\r"]), max_size=30
).map(b"".join)


@given(
    contents, st.lists(st.integers(0, 40), max_size=20), st.booleans(), st.sampled_from([b"", b"\r\n", b"words\r\n"])
)
def test_content_is_copied_whatever_the_pieces(content, sizes, length, preamble):
    boundary = b"bb7e"
    if not length and b"\r\n--" + boundary in content:
        content = b""
    out = io.BytesIO()
    answer = answer_of(content, boundary, preamble=preamble, length=length)
    assert copy_first_part(pieces_of(answer, sizes), boundary, out) == len(content)
    assert out.getvalue() == content


@given(st.binary(max_size=60), st.booleans(), st.data())
def test_answer_that_ends_early_is_an_error(content, length, data):
    answer = answer_of(content, b"bb7e", length=length)
    end = answer.index(b"\r\n\r\n") + 4 + len(content) + (0 if length else len(b"\r\n--bb7e"))
    cut = data.draw(st.integers(0, end - 1))
    with pytest.raises(IncompletePartError):
        copy_first_part([answer[:cut]], b"bb7e", io.BytesIO())


def test_answer_without_a_part_is_not_kept_in_memory():
    seen = []

    def pieces():
        for _ in range(1000):
            seen.append(1)
            yield bytes(1 << 16)

    with pytest.raises(IncompletePartError, match="no part"):
        copy_first_part(pieces(), b"bb7e", io.BytesIO())
    assert len(seen) < 4


def test_boundary_is_that_of_the_header():
    assert boundary_of('multipart/related; type="application/dicom"; boundary=a-b') == b"a-b"
    assert boundary_of('Multipart/Related;BOUNDARY="a b"; type="application/dicom"') == b"a b"
    assert boundary_of("application/dicom") is None
    with pytest.raises(IncompletePartError):
        boundary_of("multipart/related")
