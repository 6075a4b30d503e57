"""Home folders of users, known to the system or not."""

import pwd
from pathlib import Path

import pytest

from lungmix.home import make_home_known


@pytest.fixture
def no_entry(monkeypatch):
    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_home_is_the_root_folder_where_none_can_be_determined(no_entry, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(RuntimeError):
        Path.home()
    make_home_known()
    assert Path.home() == Path("/")


def test_home_that_is_known_stays(no_entry, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_home_known()
    assert Path.home() == tmp_path
