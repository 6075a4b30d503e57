"""Base class of segmenters, and the slices that they get."""

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
        Index of the first slice, counted from the feet.
    total : int
        Number of axial slices of the scan.
    spacing : tuple of float
        Distance of slices, of rows and of columns, mm.
    """

    hu: npt.NDArray[np.int16]
    first: int
    total: int
    spacing: tuple[float, float, float]


class Segmenter:
    """Base class of plug-ins that make lung masks.

    A worker process makes one object of the class and keeps it. Its methods are never called by two threads at a time.
    Labels may depend on nothing but the slices of one call. These are always the same: `batch_slices` slices from
    the feet on, the last time what is left, however the scan is stored and computed.

    Parameters
    ----------
    weights : Path, optional
        File that `find_weights` returned.
    device : str
        Device by the user, such as ``"cpu"``; `devices` lists the possible ones.

    Attributes
    ----------
    labels : mapping of int to str
        Regions of the labels that `segment` returns: ``"right"``, ``"left"``, ``"airway"``, ``"elsewhere"``, or
        ``"lung"`` where right and left are not told apart. 0 is the background.
    batch_slices : int
        Number of slices of a call.
    plane : tuple of int or None
        Rows and columns of the labels that `segment` returns, where these are not the rows and columns of the slices;
        `place` then brings them there.
    clean_up : bool
        True to keep only the largest component of each label, give smaller ones to their neighbours and fill holes, see
        `lungmix.kernels.label_components`.
    devices : tuple of str
        Devices that the class knows; a device with a number, such as ``cuda:1``, counts as that without.
    memory_bytes : int
        Memory that a worker needs for the object and a call of `segment`, beside that of the package.
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
        """Return the weights file to use, before any work begins; a class that needs none rejects one.

        Parameters
        ----------
        weights : Path, optional
            File by the user.

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
        """Return the version that masks depend on; None for that of the distribution with the entry point."""
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
            Labels; rows and columns are those of `plane`, if it is set.
        """
        raise NotImplementedError

    def place(self, labels: npt.NDArray[np.uint8], slices: AxialSlices) -> npt.NDArray[np.uint8]:
        """Return labels of shape `plane` with the rows and columns of their slices.

        Parameters
        ----------
        labels : ndarray of uint8
            Labels of the slices, after the clean-up.
        slices : AxialSlices
            The batch that they came from.
        """
        return labels
