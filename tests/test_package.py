"""What an importer sees."""

import subprocess
import sys

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
