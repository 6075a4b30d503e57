"""Writer of phantoms as DICOM series, NRRD, NIfTI or MetaImage files, slab by slab."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungmix.formats import write_image
from lungmix.formats.dicom.write import CtSeries
from lungmix.formats.images import extension_of
from lungmix.phantom.scene import Phantom

_INTERCEPT = -1024


def write_phantom(path: str | Path, phantom: Phantom) -> None:
    """Write a phantom.

    Parameters
    ----------
    path : str or Path
        File with the extension of an image format, or a folder for a DICOM series.
    phantom : Phantom
        Phantom to write; only one slab of it is in memory at a time.
    """
    target = Path(path)
    if extension_of(target) is None:
        _write_series(target, phantom)
    else:
        write_image(target, phantom.slabs(16), phantom.geometry, np.int16)


def _write_series(folder: Path, phantom: Phantom) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    entropy = (phantom.name, str(phantom.seed))
    series = CtSeries(
        phantom.geometry, phantom.acquisition, "Phantom^Chest", phantom.name, entropy, intercept=_INTERCEPT
    )
    index = 0
    for slab in phantom.slabs(16):
        for plane in slab:
            series.slice(index, plane).save_as(folder / f"{index + 1:05d}.dcm", enforce_file_format=True)
            index += 1
