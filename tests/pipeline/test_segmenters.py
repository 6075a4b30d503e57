"""Masks by segmenters through whole runs, on worker processes."""

import os
from collections import Counter

import numpy as np
import pytest

import lungmix
from cli.test_cli import run
from lungmix.callbacks import Callback
from lungmix.cli.spelling import with_options
from lungmix.errors import LungmixError, UsageError
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom, write_phantom
from lungmix.pipeline import Pipeline
from lungmix.store.choices import choose
from support import segmenters
from support.command import run_here

SIZES = MaskParameters(opening=1, min_voxels=1000, radii=(3,))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder with scans of 40, 24 and 40 slices, and with a package of segmenters that workers can import."""
    (tmp_path / "in").mkdir()
    write_phantom(tmp_path / "in" / "first.nrrd", Phantom((40, 64, 64), (5.5, 5.625, 7.5), 4))
    write_phantom(tmp_path / "in" / "second.nrrd", Phantom((24, 64, 64), (5.5, 5.625, 12.5), 5))
    write_phantom(tmp_path / "in" / "third.nrrd", Phantom((40, 64, 64), (5.5, 5.625, 7.5), 6))
    site = segmenters.install(tmp_path / "site")
    monkeypatch.syspath_prepend(site)
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), path]).strip(os.pathsep))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    segmenters.forget()
    yield tmp_path
    segmenters.forget()


class Notices(Callback):
    """Callback that stores messages."""

    def __init__(self):
        self.messages = []

    def on_info(self, message):
        self.messages.append(message)


def stages_of(url):
    return {name: case.stages for name, case in lungmix.open_cohort(url).items()}


@pytest.mark.slow
def test_a_segmenter_fails_for_one_case_alone_and_later_runs_keep_its_masks(folder):
    url, notices = folder / "s.zarr", Notices()
    options = {"mask": SIZES, "model": "published"}
    with lungmix.connect(workers=2, memory_limit="1.5GB") as client:
        pipeline = Pipeline(client, lungmix.open_cohort(url, "a"), notices)
        result = pipeline.run(folder / "in", mask_with="picky", **options)
        assert result.done == ["case-001", "case-003"]
        assert "the segmenter picky failed (ValueError" in result.failed["case-002"]
        assert "Rossi" not in str(lungmix.open_cohort(url)["case-002"].failure)
        # A worker loads the segmenter once, not once per case or task.
        loaded = Counter((folder / "log").read_text().split())
        assert loaded
        assert set(loaded.values()) == {1}
        case = lungmix.open_cohort(url)["case-001"]
        air, right = case.ct.compute() < -500, np.arange(64) < 32
        assert np.array_equal(case.side.compute(), np.where(air, np.where(right, 1, 2), 0))
        assert {row["mask"] for row in result.rows} == {"picky"}
        before = stages_of(url)

        assert pipeline.run(folder / "in", mask_with="picky", **options).done == ["case-001", "case-003"]
        kept = pipeline.run(folder / "in", **options)
        assert kept.done == ["case-001", "case-002", "case-003"]
        assert [text for text in notices.messages if "masks of 2 cases came from files or a segmenter" in text]
        after = stages_of(url)
        assert all(after[name] == before[name] for name in ("case-001", "case-003"))
        assert "from_file" not in after["case-002"]["mask"]
        (change,) = choose(str(url), masks="none", stages=("mask",)).changes
        assert "masks of 2 cases will be recomputed" in change
        assert "instead of picky" in change

        pipeline.mask(SIZES, masks="none")
        assert all("from_file" not in stages["mask"] for stages in stages_of(url).values())

    (folder / "w.txt").write_text("-600")
    words = ("--mask-with", "threshold", "--mask-weights", folder / "w.txt", "--workers", "1", "--yes")
    done = run("mask", url, *words)
    assert done.returncode == 0, done.stderr
    assert "masks of 3 cases will be replaced by those of threshold" in " ".join(done.stderr.split())
    case = lungmix.open_cohort(url)["case-002"]
    assert np.array_equal(case.lung.compute(), case.ct.compute() < -600)


UNUSABLE = [
    ({"mask_with": "nonesuch"}, "there is no segmenter 'nonesuch': choose one of"),
    ({"mask_with": "threshold", "masks": "m"}, "--masks and --mask-with both say where masks come from"),
    ({"mask_weights": "w.pth"}, "--mask-weights belongs to a segmenter: give its name, --mask-with lungmask"),
    ({"mask_device": "cuda"}, "--mask-device belongs to a segmenter"),
    ({"mask_with": "threshold", "mask_weights": "no.pth"}, "no weights in no.pth: check --mask-weights"),
    ({"masks": "nowhere"}, "nowhere does not exist: check the path of the masks"),
    ({"mask_labels": "right=1"}, "--mask-labels says what the labels of mask files are: give the files"),
]


@pytest.mark.parametrize(("options", "message"), UNUSABLE)
def test_options_that_cannot_be_used_end_a_run_before_any_work(folder, options, message):
    pipeline = Pipeline(None, lungmix.open_cohort(folder / "s.zarr", "a"))
    for method in (lambda: pipeline.run(folder / "in", **options), lambda: pipeline.mask(**options)):
        with pytest.raises(UsageError) as caught:
            method()
        assert message in with_options(str(caught.value))
    assert not list(pipeline.cohort)


@pytest.mark.parametrize(("options", "message"), [*UNUSABLE, ({"model": "no.json"}, "no.json")])
def test_options_that_cannot_be_used_leave_no_new_store(folder, options, message):
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    done = run_here("run", folder / "s.zarr", folder / "in", *words)
    assert (done.returncode, message in done.stderr) == (2, True)
    with pytest.raises(LungmixError) as caught:
        lungmix.run(folder / "s.zarr", folder / "in", **options)
    assert message in with_options(str(caught.value))
    assert not (folder / "s.zarr").exists()
