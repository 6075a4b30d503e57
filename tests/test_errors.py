"""Messages with and without the names of files."""

from __future__ import annotations

import pickle

import pytest

from lungmix.errors import SourceError, anonymous, named, shown


def test_a_person_reads_the_name_and_what_is_written_does_not_hold_it():
    error = SourceError(f"{named('/data/Doe^John.dcm')} is cut short: get it again")
    assert str(error) == "Doe^John.dcm is cut short: get it again"
    assert error.anonymous == "the file is cut short: get it again"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert pickle.loads(pickle.dumps(error)).anonymous == error.anonymous


@pytest.mark.parametrize("name", ["a\nb.nrrd", "a\u202eb.nrrd", "a\x1b[31mb", "a\u2068b\u2069c", "a\udcffb"])
def test_a_name_can_neither_move_the_cursor_nor_leave_its_marks(name):
    text = named(name)
    assert shown(text).isprintable()
    assert anonymous(f"{text} is odd") == "the file is odd"


def test_a_message_without_names_stays_as_it_is():
    assert shown("no lung found") == anonymous("no lung found") == "no lung found"
