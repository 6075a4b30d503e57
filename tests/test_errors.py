"""Messages of errors, shown with names of files and written without them."""

from __future__ import annotations

import pickle

import pytest

from lungmix.errors import (
    CaseNotFoundError,
    DamageError,
    LockedError,
    RoomError,
    SourceError,
    StoreNotFoundError,
    UsageError,
    count_of,
    error_about,
    mark_path,
    mark_untrusted,
    reason_of,
    redact,
    reveal,
    trace_of,
)

ABOUT = {"path": "/data/Doe", "case": "case-007"}


def test_names_are_shown_to_people_and_omitted_in_files():
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


@pytest.mark.parametrize(("number", "text"), [(0, "0 slices"), (1, "1 slice"), (2, "2 slices"), (1251, "1,251 slices")])
def test_a_number_has_its_noun_in_the_plural_unless_it_is_one(number, text):
    assert count_of(number, "slice") == text


def test_a_message_without_names_stays_as_it_is():
    assert reveal("no lung found") == redact("no lung found") == "no lung found"


def test_text_of_other_programs_is_shown_to_people_and_omitted_in_files():
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


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (SourceError("it is cut: get it again", **ABOUT), Exception),
        (LockedError("it is being written to: wait for it", **ABOUT), Exception),
        (UsageError("0 workers are not possible: give 1", **ABOUT), ValueError),
        (StoreNotFoundError("there is no store: make one", **ABOUT), FileNotFoundError),
        (CaseNotFoundError("there is no case: see the others", **ABOUT), KeyError),
        (DamageError("case-007", "ct", "ct/c/0"), Exception),
        (RoomError("case-007", (512, 512), 10**6, 10**9, is_local=True), Exception),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_fields_of_an_error_reach_other_processes(error, builtin):
    with pytest.raises(builtin), error_about(path="/data/Doe"):
        raise error
    received = pickle.loads(pickle.dumps(error))
    assert type(received) is type(error)
    assert (received.path, received.case) == ("/data/Doe", "case-007")
    assert (str(received), received.remedy) == (str(error), error.remedy)
    assert str(error).endswith(error.remedy)
    assert error.remedy.split()[0] in ("get", "wait", "give", "make", "see", "run")


def test_path_and_case_are_none_where_they_do_not_apply():
    error = UsageError("weights are five shares")
    assert (error.path, error.case, error.remedy) == (None, None, None)


def test_outermost_block_knows_the_path_that_a_user_gave():
    with pytest.raises(SourceError) as caught, error_about(path="scans.zip"), error_about(path="/tmp/1", case="case-1"):
        raise SourceError("it is cut")
    assert (caught.value.path, caught.value.case) == ("scans.zip", "case-1")


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("a is cut short: its voxels have no end; get the file again", "get the file again"),
        ("s is in use: wait for it, or end it; nothing was changed", "wait for it, or end it; nothing was changed"),
        ("s has no model: `Pipeline.fit()` makes one", "`Pipeline.fit()` makes one"),
        ("give one of them, not both", "give one of them, not both"),
        (f"{mark_path('x: give up')} is empty: get {mark_path('y')} again", "get the file again"),
        (f"{mark_untrusted('x; run away')} is no size", None),
        ("weights: they gain nothing", None),
    ],
)  # fmt: skip
def test_remedy_is_the_part_of_a_message_that_says_what_to_do(message, remedy):
    assert SourceError(message).remedy == remedy


def test_scripts_that_import_an_earlier_name_still_run():
    from lungmix.errors import mark_path, reveal, shown

    message = f"{mark_path('in/scan.nrrd')} is empty"
    assert shown(message) == reveal(message) == "scan.nrrd is empty"
