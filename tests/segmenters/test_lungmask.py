"""Masks by the package lungmask, with weights that these tests make.

With these weights, the network R231 labels voxels of air as right lung and aerated voxels as left lung, with noise. All
its layers are computed, but the labels are no segmentation of lungs.
"""

import json
import os
import pickle
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, example, given, settings

import lungmix
from cli.test_cli import run
from kernels.test_label_components import cleaned, label_maps, single_slice
from lungmix.errors import SegmenterError, UsageError
from lungmix.formats import write_image
from lungmix.geometry import Geometry
from lungmix.parameters import MaskParameters
from lungmix.segmenters import find_segmenter
from lungmix.segmenters.lungmask import LobesSegmenter, LungmaskSegmenter
from lungmix.stages.base import StageContext
from lungmix.stages.segmented_mask import SegmentedMaskStage
from stages.test_segmented_mask import add_case, problems_of
from support import segmenters
from support.generators import reoriented
from support.masks import InProcess

ENVIRONMENT = Path(sys.prefix) / "lungmask"

pytestmark = [pytest.mark.lungmask, pytest.mark.usefixtures("site")]


@pytest.fixture(scope="session")
def packages():
    """Folder with lungmask and PyTorch. If they are missing, the test fails in CI and is skipped elsewhere."""
    if not (ENVIRONMENT / "complete").exists():
        message = f"{ENVIRONMENT} is not complete: scripts/lungmask.sh makes it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return sysconfig.get_path("purelib", vars={"base": str(ENVIRONMENT), "platbase": str(ENVIRONMENT)})


@pytest.fixture
def site(packages, monkeypatch):
    """Make lungmask and PyTorch importable in this process and in processes that tests start."""
    # The folder comes last in the path, so that all other packages are those of the tests.
    monkeypatch.setattr(sys, "path", [*sys.path, packages])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), packages]).strip(os.pathsep))
    yield
    segmenters.forget()


@pytest.fixture(scope="module")
def weights(packages, tmp_path_factory):
    """Weights of R231 in the format of lungmask."""
    sys.path.append(packages)
    try:
        import torch
        from lungmask.resunet import UNet
    finally:
        sys.path.remove(packages)
    torch.manual_seed(0)
    model = UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False)
    state = model.state_dict()
    for tensor in state.values():
        if tensor.ndim == 4:
            tensor.mul_(0.3)
    # The first channel of the first and of the last block carries the value of the voxel, which the last layer
    # compares with thresholds.
    for name in ("down_path.0.block.0", "down_path.0.block.3", "up_path.3.conv_block.block.3"):
        state[f"{name}.weight"][0] = 0
        state[f"{name}.weight"][0, 0, 1, 1] = 1
        state[f"{name}.bias"][0] = 0
    state["up_path.3.conv_block.block.0.weight"][0] = 0
    state["up_path.3.conv_block.block.0.weight"][0, 64, 1, 1] = 1
    state["up_path.3.conv_block.block.0.bias"][0] = 0
    last = state["last.weight"]
    last *= 0.05
    last[:, 0, 0, 0] = torch.tensor([40.0, 0.0, 20.0])
    state["last.bias"][:] = torch.tensor([-14.0, 0.0, -3.0])
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(state, path)
    return path


def chest(depth):
    """A body with two lungs, air around it and a lot of noise."""
    grid = Geometry((72, 64, depth), (4.0, 4.5, 9.0), (-140.0, -120.0, 30.0))
    z, y, x = np.indices(grid.shape)
    random = np.random.default_rng(3)
    hu = np.where(((x - 36) / 33) ** 2 + ((y - 32) / 27) ** 2 < 1, 40.0, -1000.0)
    for centre, level in ((22, -980), (50, -800)):
        hu[((x - centre) / 11) ** 2 + ((y - 32) / 18) ** 2 + ((z - depth / 2) / depth) ** 2 < 1] = level
    return random.normal(hu, 60).astype(np.int16), grid


@pytest.mark.slow
@pytest.mark.usefixtures("stages_here")
def test_a_mask_equals_that_of_lungmask_to_the_voxel_in_another_storage_order(tmp_path, weights, monkeypatch):
    import lungmask
    from lungmask import utils

    hu, grid = reoriented(*chest(4), "SAR")
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    add_case(cohort, hu, grid, 8)
    stage = SegmentedMaskStage(find_segmenter("lungmask", weights), MaskParameters("physical"))
    stage.run(StageContext(InProcess(), cohort), "one")
    image = grid.apply_to(sitk.GetImageFromArray(hu))
    inferer = lungmask.LMInferer(modelpath=str(weights), force_cpu=True, batch_size=1, tqdm_disable=True)
    raw, clean = [], utils.postprocessing
    monkeypatch.setattr(
        utils, "postprocessing", lambda labels, **options: clean(raw.append(labels) or labels, **options)
    )
    expected = inferer.apply(image)
    assert not np.array_equal(clean(raw[0].copy(), disable_tqdm=True), raw[0])
    assert all((expected == label).sum() > 300 for label in (1, 2))
    assert np.array_equal(cohort["one"].side.compute(), expected)
    record = cohort["one"].stages["mask"]["from_file"]
    assert record["weights"] == sha256(weights.read_bytes()).hexdigest()
    assert {*record["libraries"]} == {"lungmask", "torch"}
    assert problems_of(cohort) == []


@settings(max_examples=60)
@given(labels=label_maps())
@example(labels=single_slice())
def test_the_clean_up_equals_that_of_lungmask(labels):
    from lungmask import utils

    # lungmask also fills single voxels where two faces of the volume meet, so the labels get a margin.
    labels = np.pad(labels, ((0, 0), (1, 1), (1, 1)))
    assume(labels.any() and (len(labels) > 1 or min(labels.shape[1:]) > 2))
    assert np.array_equal(cleaned(labels, 3), utils.postprocessing(labels.copy(), disable_tqdm=True))


@pytest.mark.slow
def test_a_run_makes_masks_by_lungmask_on_a_worker_and_the_next_keeps_them(tmp_path, weights):
    hu, grid = chest(2)
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "scan.nrrd", [hu], grid, np.int16)
    words = (
        "run", tmp_path / "s.zarr", tmp_path / "in", "--model", "published", "--workers", "1", "--memory-limit", "3GB",
        "--accept-hu", "--mask-with", "lungmask", "--mask-weights", weights, "--json",
    )  # fmt: skip
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == ["case-001"]
    before = lungmix.open_cohort(tmp_path / "s.zarr")["case-001"].stages
    assert before["mask"]["from_file"]["segmenter"] == "lungmask"
    again = run(*words)
    assert again.returncode == 0, again.stderr
    assert lungmix.open_cohort(tmp_path / "s.zarr")["case-001"].stages == before


def test_weights_in_the_cache_of_torch_are_found_and_missing_ones_are_one_sentence(tmp_path, weights, monkeypatch):
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="not in its cache: give the file, `mask_weights=FILE`"):
        find_segmenter("lungmask")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    cache.mkdir(parents=True)
    (cache / LungmaskSegmenter.weights_file).write_bytes(weights.read_bytes())
    spec = find_segmenter("lungmask")
    assert spec == find_segmenter("lungmask", cache / LungmaskSegmenter.weights_file)
    from lungmask.mask import MODEL_URLS

    for kind in (LungmaskSegmenter, LobesSegmenter):
        url, classes = MODEL_URLS[kind.network]
        assert url.endswith(f"/{kind.weights_file}")
        assert classes == len(kind.labels) + 1


def test_weights_of_a_network_for_lobes_give_lobes(tmp_path):
    import torch
    from lungmask.resunet import UNet

    from lungmix.segmenters import AxialSlices

    torch.manual_seed(0)
    model = UNet(n_classes=6, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False)
    torch.save(model.state_dict(), tmp_path / "lobes.pth")
    spec = find_segmenter("lungmask-lobes", tmp_path / "lobes.pth")
    assert {*spec.kind.labels.values()} == {"left_upper", "left_lower", "right_upper", "right_middle", "right_lower"}
    hu = np.random.default_rng(0).integers(-1000, 200, (2, 64, 64)).astype(np.int16)
    with spec.loaded() as segmenter:
        labels = segmenter.segment(AxialSlices(hu, 0, 2, (5.0, 1.0, 1.0)))
    assert labels.shape == (2, 256, 256)
    assert labels.max() <= 5


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_weights_file_runs_no_code(tmp_path):
    import torch

    for name, save in (("zip", torch.save), ("pickle", lambda value, path: path.write_bytes(pickle.dumps(value)))):
        path = tmp_path / f"{name}.pth"
        save(Touch(tmp_path / "touched"), path)
        with (
            pytest.raises(SegmenterError, match="cannot be read as weights"),
            find_segmenter("lungmask", path).loaded(),
        ):
            pass
    assert not (tmp_path / "touched").exists()


def test_weights_of_another_network_are_one_sentence(tmp_path):
    import torch

    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with (
        pytest.raises(SegmenterError, match=r"other\.pth does not hold weights of the U-net R231"),
        find_segmenter("lungmask", tmp_path / "other.pth").loaded(),
    ):
        pass


def test_a_device_that_is_missing_is_one_sentence(weights):
    import torch

    if torch.cuda.is_available():
        return
    with (
        pytest.raises(SegmenterError, match="sees no CUDA device"),
        find_segmenter("lungmask", weights, "cuda").loaded(),
    ):
        pass
