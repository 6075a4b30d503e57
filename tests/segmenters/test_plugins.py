"""Segmenters by name, and their faults, which are reported before any work begins."""

import importlib
from importlib.metadata import PackageNotFoundError

import pytest

from lungmix.errors import UsageError
from lungmix.segmenters import find_segmenter, installed_segmenters, lungmask
from support import segmenters


@pytest.fixture
def toy(tmp_path, monkeypatch):
    folder = segmenters.install(tmp_path / "site")
    segmenters.forget()
    monkeypatch.syspath_prepend(folder)
    yield folder
    segmenters.forget()


def test_segmenters_of_this_package_and_of_others_are_listed(toy):
    names = installed_segmenters()
    assert {"lungmask", "threshold", "clean"} <= {*names}
    assert names == sorted(names)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonesuch", "there is no segmenter 'nonesuch': choose one of .*lungmask.*threshold.*, or install the package"),
        ("Rossi's", "there is no segmenter"),
        ("absent", "absent cannot be imported .ModuleNotFoundError.*: install the package again"),
        ("not-a-class", "is no subclass of Segmenter"),
        ("wrong-region", "labels of wrong-region are not understood: give each number"),
    ],
)
def test_a_segmenter_that_cannot_be_used_is_one_sentence(name, message):
    with pytest.raises(UsageError, match=message) as caught:
        find_segmenter(name)
    assert caught.value.remedy


@pytest.mark.usefixtures("toy")
def test_weights_and_devices_are_checked_before_any_work(tmp_path):
    with pytest.raises(UsageError, match=r"there are no weights in none\.pth: check `mask_weights`"):
        find_segmenter("threshold", tmp_path / "none.pth")
    weights = tmp_path / "w.pth"
    weights.write_text("-500")
    with pytest.raises(UsageError, match="takes no weights"):
        find_segmenter("positions", weights)
    with pytest.raises(UsageError, match="threshold knows no device 'cuda': choose one of cpu"):
        find_segmenter("threshold", device="cuda")
    assert find_segmenter("threshold", weights).weights == str(weights)


def test_lungmask_that_is_not_installed_is_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(lungmask, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'lungmask is not installed: run `pip install "lungmix\[lungmask\]"`'):
        find_segmenter("lungmask")

    def no_version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lungmask, "version", no_version)
    with pytest.raises(UsageError, match="lungmask is not installed"):
        lungmask.LungmaskSegmenter.version()


def test_the_class_of_lungmask_is_imported_without_lungmask_and_torch(monkeypatch):
    import sys

    for name in ("torch", "lungmask"):
        monkeypatch.setitem(sys.modules, name, None)
    importlib.reload(lungmask)
    assert lungmask.LungmaskSegmenter.clean_up
