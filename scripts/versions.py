"""Run lungmix on the lowest and on the newest versions of its dependencies: ``versions.py phantom|quick``.

Each environment is made beside the checkout's own, of the built wheel: ``.venv-lowest-3.11`` has the lower bounds of
``pyproject.toml``, ``.venv-newest-3.N`` the newest releases of everything, without ``constraints.txt``, for each
newer Python that is at hand. ``phantom`` compares the measurements of one phantom with those of this environment, on
the lowest versions and on the newest of the newest Python; ``quick`` runs the quick tests on all.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
TOLERANCE = 1e-6
"""Relative difference of a measurement: sums of other releases are added in other orders."""


def main() -> None:
    """Make the environments and run in each; ends with status 1 at the first that does not pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("what", choices=("phantom", "quick"))
    parser.add_argument("only", nargs="*", help="environments, as lowest-3.11 or newest-3.13; all unless given")
    parser.add_argument("--without", metavar="MARK", help="leave out the quick tests that have this mark")
    options = parser.parse_args()
    pythons = dict(_pythons())
    newer = [minor for minor in pythons if minor > min(pythons)] or [min(pythons)]
    if options.what == "phantom":
        newer = [max(newer)]  # the short form: one environment at each end
    names = {f"lowest-3.{min(pythons)}": min(pythons)} | {f"newest-3.{minor}": minor for minor in newer}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only or names:
            environment = _install(name, pythons[names[name]], tests=options.what == "quick")
            if options.what == "quick":
                # PyTorch is installed for the checkout's own environment alone.
                wanted = "not slow and not lungmask" + (f" and not {options.without}" if options.without else "")
                pytest = [environment / "bin" / "python", "-m", "pytest", "-p", "no:cacheprovider"]
                _run([*pytest, "--numprocesses", "2", "--dist", "loadfile", "-m", wanted])
            else:
                _compare(environment, Path(scratch))
            print(f"{name}: passed", flush=True)


def untested_bounds(dependencies: Iterable[str], installed: dict[str, str]) -> list[str]:
    """Return a line for each dependency that is not installed in its lower bound."""
    lines = []
    for requirement in map(Requirement, dependencies):
        bounds = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==", "~=")]
        version = Version(installed[_canonical(requirement.name)])
        if version not in bounds:
            lines.append(f"{requirement}: {version} is the lowest that can be installed; raise the bound to it")
    return lines


def differences(ours: Sequence[dict[str, str]], theirs: Sequence[dict[str, str]]) -> list[str]:
    """Return a line for each measurement that differs by more than the tolerance."""
    if [row["case"] for row in ours] != [row["case"] for row in theirs] or ours[0].keys() != theirs[0].keys():
        return ["other cases or other columns"]
    return [
        f"{row['case']} {column}: {value} here, {other[column]} there"
        for row, other in zip(ours, theirs, strict=True)
        for column, value in row.items()
        if not _same(value, other[column])
    ]


def _same(one: str, other: str) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=TOLERANCE) or one == other
    except ValueError:
        return one == other


def _pythons() -> Iterator[tuple[int, Path]]:
    """Find the interpreters that pyproject.toml allows, on the path or among those of pyenv."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path("~/.pyenv").expanduser()) / "versions"
    for minor in (11, 12, 13):
        name = f"python3.{minor}"
        found = [Path(sys.executable)] if sys.version_info[1] == minor else []
        found += [Path(path) for path in [shutil.which(name)] if path]
        found += sorted(versions.glob(f"3.{minor}.*/bin/{name}"))
        for python in found:
            # A name of pyenv's may stand for a version that is not chosen.
            if subprocess.run([python, "-c", "import ssl, venv"], capture_output=True).returncode == 0:
                yield minor, python
                break


def _install(name: str, python: Path, *, tests: bool) -> Path:
    """Bring an environment to the versions that its name asks for, with a newly built lungmix in it."""
    environment = ROOT / f".venv-{name}"
    programs = environment / "bin"
    lowest = name.startswith("lowest")
    print(f"{name}: installing", flush=True)
    if not (programs / "python").exists():
        _uv("venv", "--python", python, environment)
    pins = environment / "pins.txt"
    pins.unlink(missing_ok=True)
    _uv(
        "pip", "compile", ROOT / "pyproject.toml", *(["--group", "test"] if tests else []), "--python",
        programs / "python", "--resolution", "lowest-direct" if lowest else "highest", "--no-annotate", "--no-header",
        "--output-file", pins,
    )  # fmt: skip
    if lowest:
        installed = dict(line.split(" ")[0].split("==") for line in pins.read_text().splitlines() if "==" in line)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        if wrong := untested_bounds(project["dependencies"], installed):
            sys.exit("\n".join(["bounds of pyproject.toml that no run sees:", *wrong]))
    _uv("pip", "sync", "--python", programs / "python", pins)
    _uv("pip", "install", "--python", programs / "python", "--no-deps", "--reinstall-package", "lungmix", ROOT)
    if tests:
        _run([programs / "python", "-m", "lungmix.kernels.compile"])
        for program in ("pyradiomics", "dask-kubernetes"):
            link, made = environment / program, Path(sys.prefix) / program
            if made.exists() and not link.exists():
                link.symlink_to(made)
    return environment


def _compare(environment: Path, scratch: Path) -> None:
    """Run a phantom in an environment and compare what was measured with this environment's."""
    scans, ours = scratch / "scans", scratch / "ours.zarr"
    if not ours.exists():
        size = ["--shape", "90", "64", "64", "--spacing", "5.5", "5.625", "3"]
        _run([sys.executable, "-m", "lungmix.phantom", scans, "--scans", "1", "--format", "dicom", *size])
        _run([sys.executable, "-m", "lungmix", *_words(ours, scans)], quiet=True)
    programs = environment / "bin"
    for words in (["--help"], ["run", "--help"], ["--version"]):
        _run([programs / "lungmix", *words], quiet=True)
    theirs = scratch / f"{environment.name}.zarr"
    _run([programs / "lungmix", *_words(theirs, scans)], quiet=True)
    if wrong := differences(_measurements(ours), _measurements(theirs)):
        sys.exit("\n".join([f"{environment.name}: measurements differ", *wrong]))


def _words(store: Path, scans: Path) -> list[str | Path]:
    # The published model: to compile the fits takes a minute more, and the quick tests have them.
    cluster = ["--workers", "1", "--memory-limit", "2GB"]
    return ["run", store, scans, "--preset", "physical", "--model", "published", *cluster, "--quiet"]


def _measurements(store: Path) -> list[dict[str, str]]:
    with (store / "measurements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _uv(*words: str | Path) -> None:
    _run([UV, *words, "--quiet"], os.environ | {"UV_PYTHON_DOWNLOADS": "never"})


def _run(command: Sequence[str | Path], environment: dict[str, str] | None = None, *, quiet: bool = False) -> None:
    output = subprocess.DEVNULL if quiet else None
    status = subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, stdout=output).returncode
    if status:
        sys.exit(f"status {status} of: {' '.join(map(str, command))}")


if __name__ == "__main__":
    main()
