"""Run all benchmarks, one after the other: ``make bench``, or ``make bench-quick`` to see that they work.

Each benchmark is a new process. At the end, a table of all figures that have a target is printed. This table, the
tables of every benchmark (as Markdown and JSON) and a picture of how time and memory grow are written for the docs,
which show those of the last full run.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import matplotlib
import psutil
from matplotlib import pyplot as plt

from figures import Sheet, Table, checks_table, markdown, show
from scans import folder_for

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
BENCHMARKS = (
    "against_memory",
    "against_dask_image",
    "shares",
    "complaints",
    "dicom_scan",
    "growth",
    "masks",
    "potts",
    "pooling",
    "publishing",
    "simulate_scale",
    "paper_scale",
)
LIBRARIES = ("numpy", "scipy", "numba", "dask", "distributed", "zarr", "SimpleITK", "dask-image")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use smaller scans, and do not write into the docs")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BENCHMARKS,
        default=BENCHMARKS,
        help="run these benchmarks, and keep the figures of the others",
    )
    parser.add_argument(
        "--scans", type=Path, metavar="FOLDER", help="folder in which phantom scans are kept for later runs"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for tables, by default that of the docs")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="file of the picture, by default that of the docs")
    chosen = parser.parse_args()
    with folder_for(chosen.scans) as scans:
        out = chosen.out or (scans / "quick" if chosen.quick else DOCS / "performance")
        picture = chosen.picture or (out / "growth.png" if chosen.quick else DOCS / "pictures" / "growth.png")
        failed = []
        for name in chosen.only:
            words = [HERE / f"{name}.py", "--scans", scans, "--out", out, *(["--quick"] if chosen.quick else [])]
            if subprocess.run([sys.executable, *map(str, words)]).returncode:
                failed.append(name)
        conclude(out, picture)
    if failed:
        sys.exit(f"these ended with an error: {', '.join(failed)}")


def conclude(out, picture):
    """Write the table of all targets, the description of the machine and the picture."""
    sheets = [Sheet.load(path) for name in BENCHMARKS if (path := out / f"{name}.json").is_file()]
    checks = [check for sheet in sheets for check in sheet.checks]
    show(checks_table(checks, "All figures that have a target"))
    (out / "targets.md").write_text(markdown(checks_table(checks, "")))
    (out / "machine.md").write_text(markdown(machine()))
    for sheet in sheets:
        if sheet.name == "growth":
            draw(sheet.data["runs"], picture)


def machine():
    """Return a table that describes the machine and the versions of packages."""
    memory = f"{psutil.virtual_memory().total / 1e9:.0f} GB"
    rows = [
        ["processor", f"{platform.machine()}, {os.cpu_count()} cores"],
        ["memory", memory],
        ["Python", platform.python_version()],
        *([library, version(library)] for library in LIBRARIES),
    ]
    return Table("", ["", "measured with"], rows)


def draw(runs, picture):
    """Draw time and the peak of the largest worker over the number of slices."""
    matplotlib.use("agg")
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colours = {1: "#d95f02", 2: "#1b6ca8"}
    lengths = sorted({one["slices"] for one in runs})
    for workers in sorted({one["workers"] for one in runs}):
        mine = sorted((one for one in runs if one["workers"] == workers), key=lambda one: one["slices"])
        x, style = (
            [one["slices"] for one in mine],
            {"color": colours.get(workers), "marker": "o", "lw": 2, "clip_on": False},
        )
        name = f"{workers} worker{'s' * (workers > 1)}"
        time.plot(x, [one["seconds"] for one in mine], label=name, **style)
        memory.plot(x, [max(one["peaks"]) / 2**20 for one in mine], label=name, **style)
    one = sorted((one for one in runs if one["workers"] == max(colours)), key=lambda one: one["slices"]) or runs
    memory.plot(
        [r["slices"] for r in one], [r["predicted"] / 2**20 for r in one], color="0.5", ls="--", label="memory model"
    )
    memory.axhline(1024, color="0.7", lw=1)
    beside = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
    memory.annotate("1 GiB", (1, 1024), va="center", color="0.4", annotation_clip=False, **beside)
    time.set(ylabel="seconds", title="Time of the whole job", ylim=(0, None))
    memory.set(ylabel="MiB", title="Peak of the largest worker", ylim=(0, 1200))
    for axes in (time, memory):
        axes.set(xlabel="slices of 512 x 512 pixels", xlim=(0, lengths[-1] * 1.02))
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths], rotation=45 if len(lengths) > 3 else 0)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
    time.legend(frameon=False)
    memory.legend(frameon=False, loc="lower right")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
