"""Temporary folders of unpacked archives are removed when their process ends, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostile.places import zip_plain

WAIT = """
import sys
from lungmix.formats import find_scans
(scan,) = find_scans(sys.argv[1])
print(scan.files[0], flush=True)
sys.stdin.readline()
"""


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("end", [None, signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_folder_of_an_archive_is_gone_when_its_process_is(tmp_path, end):
    passing = tmp_path / "passing"
    passing.mkdir()
    source = zip_plain(tmp_path)
    command = [sys.executable, "-c", WAIT, str(source)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "TMPDIR": str(passing)}, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            file = Path(process.stdout.readline().strip())
            assert file.is_file()
            assert passing in file.parents
            if end is None:
                process.stdin.write("\n")
                process.stdin.close()
            else:
                os.killpg(process.pid, end)
            process.wait(20)
        finally:
            process.kill()
    until(lambda: not list(passing.iterdir()))
