"""Machine code of kernels is read from every readable folder, written to a writable one, and never required."""

import os
import stat
import tempfile
import textwrap
from pathlib import Path

import pytest

import lungmix
from support.unprivileged_user import as_nobody, open_to_all, read_only

CALL = "import own.outer as o; print(o.outer(1), len(o.outer.stats.cache_hits), len(o.outer.stats.cache_misses))"
COMPILED, KEPT = "0 1", "1 0"


@pytest.fixture
def tmp_path():
    """Return a temporary folder that other users can read, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def package(tmp_path):
    """Write a package of two kernels, one of which calls the other, and return its folder."""
    folder = tmp_path / "packages" / "own"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    write(folder / "inner.py", "from lungmix.kernels.jit import kernel\n@kernel()\ndef inner(x):\n    return x + 1\n")
    outer = "from lungmix.kernels.jit import kernel\nfrom own.inner import inner\n"
    write(folder / "outer.py", f"{outer}@kernel()\ndef outer(x):\n    return inner(x) * 10\n")
    open_to_all(folder)
    return folder


def write(file, text):
    file.write_text(textwrap.dedent(text))


def call(package, **variables):
    """Run `CALL` as a user without a home, with these environment variables, and return the two values it prints."""
    path = f"{package.parent}:{Path(lungmix.__file__).parents[1]}"
    done = as_nobody(["-B", "-c", CALL], package.parent, PYTHONPATH=path, **variables)
    assert not done.stderr, done.stderr
    value, counts = done.stdout.strip().split(" ", 1)
    return int(value), counts


def kept_in(folder):
    return sorted(path.name for path in folder.rglob("*.nb?"))


def test_kernel_works_where_nothing_can_be_written(package, tmp_path):
    read_only(package)
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    read_only(nowhere)
    assert call(package, HOME="/nonexistent", TMPDIR=str(nowhere)) == (20, COMPILED)
    assert not kept_in(tmp_path)


def test_kernel_compiled_by_another_user_is_not_compiled_again(package, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    open_to_all(home)
    assert call(package, HOME="/nonexistent") == (20, COMPILED)
    assert kept_in(package)
    read_only(package)
    assert call(package, HOME=str(home)) == (20, KEPT)
    assert call(package, NUMBA_CACHE_DIR=str(home)) == (20, KEPT)
    assert not list(home.rglob("*"))


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "TMPDIR"])
def test_kernel_is_kept_in_the_first_folder_that_takes_it(package, tmp_path, variable):
    folder = tmp_path / "folder"
    folder.mkdir()
    open_to_all(folder)
    read_only(package)
    variables = {"HOME": "/nonexistent", variable: str(folder)}
    assert call(package, **variables) == (20, COMPILED)
    assert len(kept_in(folder)) == 4
    assert call(package, **variables) == (20, KEPT)
    assert all(not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) for path in folder.rglob("*"))


def test_machine_code_in_a_temporary_folder_that_others_can_write_is_not_run(package, tmp_path):
    read_only(package)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    open_to_all(temporary)
    variables = {"HOME": "/nonexistent", "TMPDIR": str(temporary)}
    assert call(package, **variables) == (20, COMPILED)
    (folder,) = temporary.iterdir()
    folder.chmod(0o777)
    assert call(package, **variables) == (20, COMPILED)


def test_truncated_machine_code_is_compiled_again(package):
    call(package, HOME="/nonexistent")
    for file in package.rglob("*.nb?"):
        file.write_bytes(file.read_bytes()[:10])
    assert call(package, HOME="/nonexistent") == (20, COMPILED)


def test_kernel_is_compiled_again_where_one_that_it_calls_has_changed(package):
    assert call(package, HOME="/nonexistent") == (20, COMPILED)
    file = package / "inner.py"
    state = file.stat()
    file.write_text(file.read_text().replace("x + 1", "x + 2"))
    os.utime(
        file, ns=(state.st_atime_ns, state.st_mtime_ns)
    )  # as in a container image, where all files have the time of the build
    assert call(package, HOME="/nonexistent") == (30, COMPILED)


def test_every_kernel_of_the_package_keeps_its_machine_code_in_this_way():
    for file in Path(lungmix.__file__).parent.rglob("*.py"):
        assert "cache=True" not in file.read_text(), file
    done = as_nobody(["-c", "import lungmix.mixture.em_kernels as b; print(type(b._run._cache).__name__)"], Path("/"))
    assert done.stdout.strip() == "LayeredCache", done.stderr
