"""Warnings of libraries, which may quote headers, are not printed."""

import subprocess
import sys

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from privacy.planting import WORD
from support.series import write_series


def test_warnings_of_libraries_are_not_printed(tmp_path):
    for file in write_series(tmp_path / "s"):
        dataset = pydicom.dcmread(file)
        for tag, vr in (
            (0x00080005, "CS"),
            (0x00100010, "PN"),
            (0x0020000D, "UI"),
            (0x00080020, "DA"),
            (0x00200011, "IS"),
        ):
            value = f"{WORD} ".encode()[: (len(WORD) + 1) // 2 * 2]
            dataset._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
        dataset.save_as(file)
    command = "import sys; from lungmix.cli.app import main; main(sys.argv[1:])"
    for option in ("--json", "--debug"):
        words = [sys.executable, "-W", "always", "-c", command, "scan", tmp_path / "s", option]
        done = subprocess.run(words, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert WORD.encode() not in done.stdout + done.stderr
