"""What an importer sees."""

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

import lungmix

ROOT = Path(__file__).parents[1]
GIT = shutil.which("git") if (ROOT / ".git").exists() else None


@pytest.fixture(scope="module")
def versions():
    """The script that runs the lowest and the newest versions."""
    spec = importlib.util.spec_from_file_location("versions", ROOT / "scripts" / "versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The source archive and the wheel of this checkout, as hatchling builds them."""
    folder = tmp_path_factory.mktemp("dist")
    for builder in (SdistBuilder, WheelBuilder):
        list(builder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        source = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        return source, set(wheel.namelist()), wheel.read(entry).decode()


def checked_in():
    """What git has, or where there is no git, as in an unpacked source archive, what lies there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True) if GIT else None
    if listed is not None and listed.returncode == 0:
        return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    tops = (".ci", ".devcontainer", ".github", "scripts", "src", "tests", "docs", "benchmarks", "notebooks")
    files = (path for top in tops for path in (ROOT / top).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in files}
    made = ("docs/_build/", "docs/commands/")
    kept = {name for name in names if "__pycache__" not in name and not name.startswith(made)}
    pages = {"CITATION.cff", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"}
    return kept | pages | {
        "Makefile", "constraints.txt", "pyproject.toml", ".gitignore", ".editorconfig", ".pre-commit-config.yaml",
    }  # fmt: skip


def test_source_archive_has_every_file_that_is_checked_in(archives):
    assert sorted(checked_in() - archives[0]) == []


def test_wheel_has_types_pages_and_the_command_and_no_tests(archives):
    _, names, commands = archives
    assert {"lungmix/py.typed", "lungmix/__main__.py"} <= names
    # Packages load their names by these stubs.
    assert {f"lungmix/{name}__init__.pyi" for name in ("", "graphs/", "mixture/")} <= names
    assert {Path(name).parts[0] for name in names if "dist-info" not in name} == {"lungmix"}
    pages = {f"lungmix/webpage/{name}" for name in ("templates", "static")}
    assert all(any(name.startswith(page) for name in names) for page in pages)
    assert "lungmix = lungmix.cli:main" in commands


def test_page_on_dependencies_has_the_bounds_that_are_tested():
    table = (ROOT / "docs" / "dependencies.md").read_text().split("## Which versions")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| ")][2:]
    cells = [[cell.strip().split(", ") for cell in row] for row in rows]
    bounds = {name.lower(): bound for names, limits in cells for name, bound in zip(names, limits, strict=True)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = map(Requirement, project["dependencies"])
    assert bounds == {part.name.lower(): str(part.specifier).removeprefix(">=") for part in requirements}


def test_bound_that_is_not_what_was_installed_is_named(versions):
    installed = {"numpy": "2.0.0", "simpleitk": "2.5.4", "zarr": "3.1.1", "dask": "2025.11.0"}
    allowed = ["numpy>=2.0", "SimpleITK>=2.5.4", "dask[array]>=2025.11"]
    assert versions.untested_bounds(allowed, installed) == []
    assert [line.split(":")[0] for line in versions.untested_bounds([*allowed, "zarr>=3.1"], installed)] == [
        "zarr>=3.1"
    ]
    assert len(versions.untested_bounds(["zarr"], installed)) == 1


def test_measurements_of_other_versions_may_differ_in_rounding_only(versions):
    row = {"case": "case-001", "lung_ml": "2742.1", "right_ml": "nan", "note": "none"}
    same = row | {"lung_ml": "2742.1000001"}
    assert versions.differences([row], [same]) == []
    for other in ({"lung_ml": "2742.2"}, {"right_ml": "1"}, {"note": "some"}, {"case": "case-002"}):
        assert len(versions.differences([row], [row | other])) == 1
