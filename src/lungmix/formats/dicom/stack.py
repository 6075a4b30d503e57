"""How slices in DICOM files make a volume: all that a worker needs to read it, and nothing of the patient."""

from __future__ import annotations

from dataclasses import dataclass

from lungmix.formats.dicom.resample import Resampling


@dataclass(frozen=True)
class Frame:
    """A slice in a multi-frame file.

    Attributes
    ----------
    index : int
        Number of the frame in the file, from 0.
    slope, intercept : float
        HU of a stored value is ``slope * value + intercept``.
    """

    index: int
    slope: float
    intercept: float


@dataclass(frozen=True)
class SliceStack:
    """The slices of a volume in the order of z.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of a slice in the files.
    frames : tuple of Frame, optional
        One a file of the scan; None where each file holds one slice.
    padding : tuple of (float, float) or None, optional
        One a slice: from which HU to which HU a value stands for padding. None where padding is air already.
    resampling : Resampling, optional
        How the volume is made of the slices; None where they are its slices.
    """

    shape: tuple[int, int]
    frames: tuple[Frame, ...] | None = None
    padding: tuple[tuple[float, float] | None, ...] | None = None
    resampling: Resampling | None = None

    @property
    def is_plain(self) -> bool:
        """Whether every slice of the volume is one file."""
        return self.frames is None and self.resampling is None
