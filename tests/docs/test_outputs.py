"""Outputs that pages show are those of the program: the commands of a page are run, and what they print is compared."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from lungmix.cli.app import app
from lungmix.cli.show_evaluation import show_evaluation
from lungmix.pipeline.evaluation import EvaluationResult
from support.series import write_series

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Language and text of the code blocks of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def first_line_that_was_not_printed(shown: str, printed: str) -> str | None:
    """A block may begin anywhere; ``...`` stands for any lines or text; times, memory and the version vary."""
    lines = iter([line.rstrip() for line in printed.splitlines()])
    skips = True
    for line in shown.splitlines():
        if line == "...":
            skips = True
            continue
        pattern = ".*".join(re.escape(part) for part in line.split("..."))
        if line.startswith("preset of the masks: "):
            pattern = re.sub(r"lungmix\\ \S+$", r"lungmix \\S+", pattern)
        if line.startswith("time: "):
            pattern = re.sub(r"\d+(\\\.\d+)?", r"[0-9.]+", pattern)
        while not re.fullmatch(pattern, candidate := next(lines, "\0")):
            if candidate == "\0" or not skips:
                return line
        skips = False
    return None


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("a\nb", None),
        ("a\n...\nd e", None),
        ("b\n...e", "...e"),
        ("a\nc", "c"),
        ("a\n...\nf", "f"),
        ("d ...", None),
        ("time: 1.5 s of 3", None),
        ("time: 1.5 h of 3", "time: 1.5 h of 3"),
    ],
)
def test_shown_lines_are_compared_in_order(shown, expected):
    assert first_line_that_was_not_printed(shown, "a\nb  \nc\nd e\ntime: 22 s of 4\n") == expected


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """Folder of the tutorial after its commands were run one after another, and what each one printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copy(DOCS / "tutorial_figure.py", folder / "figure.py")
    blocks = [text for language, text in blocks_of(DOCS / "tutorial.md") if language == "sh"]
    return folder, {command: printed_by(command, folder) for command in "".join(blocks).splitlines()}


def printed_by(command: str, folder: Path) -> str:
    program, *words = command.split()
    python = {"python": [sys.executable], "lungmix": [sys.executable, "-m", "lungmix"]}[program]
    done = subprocess.run([*python, *words], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_tutorial_shows_what_its_commands_print(tutorial):
    folder, printed = tutorial
    command, compared = "", 0
    for language, text in blocks_of(DOCS / "tutorial.md"):
        if language == "sh":
            command = text.splitlines()[-1]
        if language == "text":
            assert first_line_that_was_not_printed(text, printed[command]) is None, printed[command]
            compared += 1
    assert compared == 2
    for name in ("page/index.html", "figure.png", "case-002_tissue.seg.nrrd"):
        assert (folder / name).stat().st_size > 10_000


@pytest.mark.slow
def test_page_on_follow_up_shows_what_its_commands_print(tmp_path):
    blocks = blocks_of(DOCS / "followup.md")
    (commands,) = (text.splitlines() for language, text in blocks if language == "sh" and text.startswith("python"))
    printed = [printed_by(command, tmp_path) for command in commands]
    (shown,) = (text for _, text in blocks if text.startswith(" patient"))
    assert first_line_that_was_not_printed(shown, printed[-1]) is None, printed[-1]


@pytest.mark.slow
def test_readme_shows_what_the_demo_prints(tutorial):
    folder, _ = tutorial
    (shown,) = [text for language, text in blocks_of(ROOT / "README.md") if language == "text"]
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    write, run, say = (line.removeprefix("\t") for line in recipe.splitlines())
    # The same scans in another format: those of the tutorial.
    assert write.split()[1:] == ["-m", "lungmix.phantom", "demo/scans", "--scans", "3", "--format", "mixed"]
    words = run.split()[1:]
    assert words == ["run", "demo/cohort.zarr", "demo/scans", "--report", "demo/page"]
    printed = printed_by("lungmix run cohort.zarr scans --model fit --yes", folder)
    said = say.removeprefix('@echo "').removesuffix('"')
    assert first_line_that_was_not_printed(shown, f"{printed}{said}\n") is None, printed


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The folder of three series that pages list: one whole, a coronal reformat, and one that lacks a slice."""
    folder = tmp_path_factory.mktemp("lists") / "mixed"
    plane = np.zeros((1, 512, 512), np.int16)
    series = (
        ("a", 100, (0.898, 0.898, 2.5), {"ConvolutionKernel": "LUNG", "SeriesNumber": 3}, 1),
        ("b", 4, (0.7, 0.7, 5.0), {"ConvolutionKernel": "B", "SeriesNumber": 9, **CORONAL}, 2),
        ("c", 100, (0.7, 0.7, 1.0), {"ConvolutionKernel": "B40f", "SeriesNumber": 3}, 3),
    )
    for name, slices, spacing, tags, seed in series:
        files = write_series(folder / name, np.repeat(plane, slices, 0), seed, spacing, **tags)
        for number, file in enumerate(files, 1):
            if (name, number) != ("c", 41):
                file.rename(folder / f"{name.upper()}{number:03d}")
        shutil.rmtree(folder / name)
    return folder


CORONAL = {
    "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
    "ImagePositionPatient": lambda index: [0, 5.0 * index, 0],
    "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"],
}


@pytest.mark.parametrize("page", ["dicom.md", "howto/own-scans.md"])
def test_pages_show_the_list_that_scan_prints(mixed, monkeypatch, page):
    monkeypatch.chdir(mixed.parent)
    done = CliRunner().invoke(app, ["scan", "mixed", "--quiet"], env={"COLUMNS": "120", "TERM": "dumb"})
    (shown,) = [text for language, text in blocks_of(DOCS / page) if language == "text"]
    assert done.exit_code == 1
    assert first_line_that_was_not_printed(shown.removeprefix("$ lungmix scan mixed/\n"), done.output) is None, (
        done.output
    )


def test_page_shows_the_table_that_evaluate_prints():
    numbers = {
        "lungs": (0.967, 1.62, 8.2, 0.899, 5372, 5243, 2.5),
        "right": (0.969, 2.18, 13.9, 0.883, 2990, 2966, 0.8),
        "left": (0.965, 1.10, 5.3, 0.913, 2382, 2277, 4.6),
    }
    keys = ("dice", "asd_mm", "hd95_mm", "surface_dice_3mm", "volume_ml", "reference_ml", "volume_difference_percent")
    rows = [
        {"case": "case-001", "region": region, **dict(zip(keys, values, strict=True))}
        for region, values in numbers.items()
    ]
    console = Console(width=100, record=True, file=io.StringIO())
    show_evaluation(console, EvaluationResult(rows=rows), "cohort.zarr")
    (shown,) = [text for language, text in blocks_of(DOCS / "howto" / "evaluate.md") if language == "text"]
    assert first_line_that_was_not_printed(shown, console.export_text()) is None
