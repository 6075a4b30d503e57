"""Messages with and without the names of files."""

from __future__ import annotations

import pickle

import pytest

from lungmix.errors import SourceError, mark_path, mark_untrusted, reason_of, redact, reveal, trace_of


def test_a_person_reads_the_name_and_what_is_written_does_not_hold_it():
    error = SourceError(f"{mark_path('/data/Doe^John.dcm')} is cut short: get it again")
    assert str(error) == "Doe^John.dcm is cut short: get it again"
    assert error.redacted_message == "the file is cut short: get it again"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert pickle.loads(pickle.dumps(error)).redacted_message == error.redacted_message


@pytest.mark.parametrize("name", ["a\nb.nrrd", "a\u202eb.nrrd", "a\x1b[31mb", "a\u2068b\u2069c", "a\udcffb"])
def test_a_name_can_neither_move_the_cursor_nor_leave_its_marks(name):
    text = mark_path(name)
    assert reveal(text).isprintable()
    assert redact(f"{text} is odd") == "the file is odd"


def test_a_message_without_names_stays_as_it_is():
    assert reveal("no lung found") == redact("no lung found") == "no lung found"


def test_words_of_others_are_shown_to_a_person_and_left_out_of_what_is_written():
    words = mark_untrusted("Doe\x1b[31m")
    message = f"{mark_path('/data/Doe.nrrd')} says {words}: export it again"
    assert reveal(message) == "Doe.nrrd says Doe\\x1b[31m: export it again"
    assert redact(message) == "the file says ...: export it again"
    assert redact(reason_of(ValueError("Doe"))) == "unexpected ValueError: ...; report it with its traceback"
    missing = FileNotFoundError(2, "No such file", "/data/Doe")
    assert redact(reason_of(missing)).startswith("reading or writing failed (No such file)")


def raised(error):
    try:
        try:
            raise KeyError("Doe")
        except KeyError as inner:
            raise error from inner
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "error", [SourceError(f"{mark_path('Doe')} is cut"), ValueError("Doe"), FileNotFoundError(2, "No such file", "Doe")]
)
def test_a_traceback_says_where_and_what_kind_but_no_names(error):
    trace = trace_of(raised(error))
    assert trace.count("Traceback") == 2
    assert "in raised" in trace
    assert trace.index("KeyError") < trace.rindex(type(error).__name__)
    assert "Doe" not in "".join(line for line in trace.splitlines() if not line.startswith(" "))


def test_what_a_worker_logs_of_an_error_holds_no_name():
    assert repr(SourceError(f"{mark_path('Doe')} is cut")) == "SourceError('the file is cut')"
