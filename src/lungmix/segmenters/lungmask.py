"""Segmenters with the U-nets of the package lungmask, which also prepares the slices and places the labels.

Source: Hofmanninger et al., Automatic lung segmentation in routine imaging is primarily a data diversity problem, not a
methodology problem, European Radiology Experimental 4, 50 (2020).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lungmix.errors import SegmenterError, UsageError, mark_path
from lungmix.segmenters.base import AxialSlices, Segmenter

INSTALL = 'pip install "lungmix[lungmask]"'

_PACKAGE = "lungmask"
_HIGHEST_HU, _LOWEST_HU = 600, -1024


class LungmaskSegmenter(Segmenter):
    """U-net R231 of lungmask, which labels right and left lung.

    On the CPU the network gets single slices and runs in one thread, as with ``lungmask --cpu``, so that labels depend
    neither on batches nor on the number of cores. On a GPU it gets batches of 16 slices.

    Attributes
    ----------
    network : str
        Name of the network in lungmask.
    weights_file : str
        File name of its weights in the cache of torch.
    """

    network: ClassVar[str] = "R231"
    weights_file: ClassVar[str] = "unet_r231-d5d2fc3d.pth"
    plane: ClassVar[tuple[int, int] | None] = (256, 256)
    clean_up: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda", "mps")
    memory_bytes: ClassVar[int] = 700 << 20
    libraries: ClassVar[tuple[str, ...]] = (_PACKAGE, "torch")

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        import torch
        from lungmask import utils
        from lungmask.resunet import UNet

        self._torch, self._utils = torch, utils
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SegmenterError(
                "PyTorch sees no CUDA device on a worker: omit `mask_device`, or start workers with a CUDA device"
            )
        self._device = torch.device(device)
        assert weights is not None
        state = _read_state(torch, weights)
        model = UNet(
            n_classes=len(self.labels) + 1, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False
        )
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError):
            raise SegmenterError(
                f"{mark_path(weights)} does not hold weights of the U-net {self.network}: give the file that lungmask "
                "publishes"
            ) from None
        self._model = model.eval().to(self._device)

    @classmethod
    def find_weights(cls, weights: Path | None) -> Path | None:
        """Return the weights file that the user gave, or else the weights file in the cache of torch.

        Raises
        ------
        UsageError
            If lungmask or its weights are missing.
        """
        if any(find_spec(package) is None for package in (_PACKAGE, "torch")):
            raise UsageError(f"lungmask is not installed: run `{INSTALL}`")
        weights = weights or cached_weights(cls.weights_file)
        if not weights.is_file():
            raise UsageError(
                "the weights of lungmask are not in its cache: give the file, `mask_weights=FILE`, or have lungmask "
                f"fetch them once, python -c \"import lungmask; lungmask.LMInferer('{cls.network}')\""
            )
        return weights

    @classmethod
    def version(cls) -> str | None:
        """Return the version of lungmask."""
        try:
            return version(_PACKAGE)
        except PackageNotFoundError:
            raise UsageError(f"lungmask is not installed: run `{INSTALL}`") from None

    def segment(self, slices: AxialSlices) -> npt.NDArray[np.uint8]:
        """Return the labels of slices, on 256 rows and columns that cover only the body."""
        pixels, _ = self._utils.preprocess(slices.hu, resolution=list(self.plane or ()))
        pixels = np.divide(np.minimum(pixels, _HIGHEST_HU) - _LOWEST_HU, _HIGHEST_HU - _LOWEST_HU)
        size = 1 if self._device.type == "cpu" else self.batch_slices
        labels = np.empty(pixels.shape, np.uint8)
        torch = self._torch
        with torch.inference_mode(), _single_thread(torch):
            for start in range(0, len(pixels), size):
                batch = torch.as_tensor(pixels[start : start + size, None], dtype=torch.float32, device=self._device)
                labels[start : start + size] = torch.max(self._model(batch), 1)[1].cpu().numpy()
        return labels

    def place(self, labels: npt.NDArray[np.uint8], slices: AxialSlices) -> npt.NDArray[np.uint8]:
        """Return labels mapped from the box around the body to the rows and columns of the slices."""
        placed = np.zeros(slices.hu.shape, np.uint8)
        filled = np.flatnonzero(labels.any(axis=(1, 2)))
        if filled.size:
            _, boxes = self._utils.preprocess(slices.hu[filled], resolution=list(self.plane or ()))
            for index, box in zip(filled, boxes, strict=True):
                placed[index] = self._utils.reshape_mask(labels[index], box, slices.hu.shape[1:])
        return placed


class LobesSegmenter(LungmaskSegmenter):
    """U-net LTRCLobes of lungmask, which labels the five lobes."""

    labels: ClassVar[Mapping[int, str]] = {
        1: "left_upper", 2: "left_lower", 3: "right_upper", 4: "right_middle", 5: "right_lower",
    }  # fmt: skip
    network: ClassVar[str] = "LTRCLobes"
    weights_file: ClassVar[str] = "unet_ltrclobes-3a07043d.pth"


def cached_weights(file: str) -> Path:
    """Return the path of a file of weights in the cache of torch, without importing torch, which is slow."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints" / file


def _read_state(torch: Any, weights: Path) -> Any:
    """Return the tensors of a weights file; other pickled objects, which could run code, are not loaded."""
    try:
        return torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SegmenterError(
            f"{mark_path(weights)} cannot be read as weights ({type(error).__name__}): get the file again"
        ) from None


@contextmanager
def _single_thread(torch: Any) -> Iterator[None]:
    """Limit torch to one thread within a ``with`` block, since rounding errors depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
