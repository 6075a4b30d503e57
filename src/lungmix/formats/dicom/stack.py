"""Description of a DICOM volume by which a worker reads it; contains no patient data."""

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
        Rescaling to HU, ``slope * value + intercept``.
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
        One frame per file of the scan; None where each file holds one slice.
    padding : tuple of (float, float) or None, optional
        Lowest and highest HU of the padding, per slice. None where padding is already air.
    resampling : Resampling, optional
        Interpolation of the volume from the slices; None where the volume consists of the slices as they are.
    """

    shape: tuple[int, int]
    frames: tuple[Frame, ...] | None = None
    padding: tuple[tuple[float, float] | None, ...] | None = None
    resampling: Resampling | None = None

    @property
    def is_plain(self) -> bool:
        """True where every slice of the volume is one file."""
        return self.frames is None and self.resampling is None
