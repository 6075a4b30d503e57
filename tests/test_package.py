"""What an importer sees."""

import subprocess
import sys
from pathlib import Path

import pytest

import lungmix


def test_every_public_name_is_there_and_listed():
    for name in lungmix.__all__:
        assert getattr(lungmix, name) is not None
        assert name in dir(lungmix)
    assert not hasattr(lungmix, "nonsense")


def test_help_loads_no_array_library():
    code = (
        "import sys\nfrom lungmix.cli.app import app\n"
        "try: app(['run', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'dask', 'numba', 'zarr', 'sklearn', 'SimpleITK', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"], ["run"]])
def test_python_m_lungmix_is_the_command_itself(words):
    command = Path(sys.executable).with_name("lungmix")
    said = [
        subprocess.run([*program, *words], capture_output=True, text=True, timeout=60)
        for program in ([command], [sys.executable, "-m", "lungmix"])
    ]
    assert said[0].stdout + said[0].stderr
    first, second = ((done.returncode, done.stdout, done.stderr) for done in said)
    assert first == second


def test_python_m_lungmix_runs_a_cohort_with_a_worker_of_its_own(scan, tmp_path):
    words = ["run", tmp_path / "cohort.zarr", scan, "--workers", "1", "--memory-limit", "1.5GB", "--preset", "physical"]
    done = subprocess.run([sys.executable, "-m", "lungmix", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cohort.zarr" / "measurements.csv").read_text().count("\n") == 2
