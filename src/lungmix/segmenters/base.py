"""Base class of segmenters, and the slices that segmenters are called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError


@dataclass(frozen=True, eq=False)
class AxialSlices:
    """Consecutive axial slices of a scan, in one orientation whatever the storage order of the scan.

    Attributes
    ----------
    hu : ndarray of int16, shape (slices, rows, columns)
        Hounsfield units. Slices run from the feet to the head, rows from front to back, columns from the patient's
        right to the left, so that a slice looks as on a radiologist's screen.
    first : int
        Index of the first of these slices in the scan, counted from the feet.
    total : int
        Number of axial slices of the scan.
    spacing : tuple of float
        Distance between slices, between rows and between columns, mm.
    """

    hu: npt.NDArray[np.int16]
    first: int
    total: int
    spacing: tuple[float, float, float]


class Segmenter:
    """Base class of plug-ins that make lung masks.

    A worker process makes one object of the class and keeps it. Its methods are never called by two threads at a time.
    The labels of a call may depend only on the slices of that call. Calls always get the same batches of slices:
    `batch_slices` slices each, counted from the feet, with a smaller last batch. Batches depend neither on the storage
    order of the scan nor on workers.

    Parameters
    ----------
    weights : Path, optional
        File that `find_weights` returned.
    device : str
        Device that the user chose, such as ``"cpu"``; `devices` lists the possible values.

    Attributes
    ----------
    labels : mapping of int to str
        Region of each label that `segment` returns: ``"right"``, ``"left"``, ``"airway"``, ``"elsewhere"``,
        ``"lung"`` for both lungs together, or a lobe, such as ``"right_upper"``. Label 0 is the background.
    batch_slices : int
        Number of slices per call.
    plane : tuple of int or None
        Rows and columns of the labels that `segment` returns, if they differ from those of the slices; `place` then
        maps the labels to the slices. None if they are equal.
    clean_up : bool
        True to keep only the largest component of each label, give smaller components to neighbouring labels, and fill
        holes; see `lungmix.kernels.label_components`.
    devices : tuple of str
        Devices that the class supports, without a number: ``cuda`` includes ``cuda:1``.
    memory_bytes : int
        Memory that a worker needs for the object and a call of `segment`, in addition to what it needs anyway.
    libraries : tuple of str
        Installed packages whose versions are recorded with each mask.
    """

    labels: ClassVar[Mapping[int, str]] = {1: "right", 2: "left"}
    batch_slices: ClassVar[int] = 16
    plane: ClassVar[tuple[int, int] | None] = None
    clean_up: ClassVar[bool] = False
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    memory_bytes: ClassVar[int] = 0
    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        pass

    @classmethod
    def find_weights(cls, weights: Path | None) -> Path | None:
        """Return the weights file to use; None if the class needs no weights. It is called before any work begins.

        Parameters
        ----------
        weights : Path, optional
            File that the user gave.

        Raises
        ------
        UsageError
            If the file is missing or is not needed, or a package is not installed.
        """
        if weights is not None:
            raise UsageError("this segmenter takes no weights: omit `mask_weights`")
        return None

    @classmethod
    def version(cls) -> str | None:
        """Return the version that masks depend on; None stands for the version of the package with the entry point."""
        return None

    def segment(self, slices: AxialSlices) -> npt.NDArray[np.uint8]:
        """Return the labels of slices.

        Parameters
        ----------
        slices : AxialSlices
            A batch of slices.

        Returns
        -------
        ndarray of uint8, shape (slices, rows, columns)
            Labels, with the rows and columns of `plane` if it is not None, else of the slices.
        """
        raise NotImplementedError

    def place(self, labels: npt.NDArray[np.uint8], slices: AxialSlices) -> npt.NDArray[np.uint8]:
        """Return labels mapped from the rows and columns of `plane` to those of the slices.

        Parameters
        ----------
        labels : ndarray of uint8, shape (slices, rows, columns)
            Labels with the rows and columns of `plane`, after the clean-up.
        slices : AxialSlices
            Batch of slices for which `segment` returned the labels.
        """
        return labels
