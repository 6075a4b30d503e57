"""Writer of image files, slab by slab. A file appears under its name only when it is complete."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
import numpy.typing as npt

from lungmix.atomic import atomic_file
from lungmix.errors import UsageError
from lungmix.formats.header import PREFIX
from lungmix.formats.images import extension_of
from lungmix.geometry import Geometry

Slabs = Iterable[npt.NDArray[Any]]

WRITTEN = (".nrrd", ".nii", ".nii.gz", ".mha", ".mhd")
"""Extensions of the files that are written; more are read, see `lungmix.formats.images.KINDS`."""

_NAMES = {"int16": ("int16", "MET_SHORT"), "uint8": ("uint8", "MET_UCHAR"), "float32": ("float", "MET_FLOAT")}
_LEVEL = 1  # of deflate: label maps still shrink a hundredfold, and writing takes a third of the time


def write_image(
    path: str | Path,
    slabs: Slabs,
    geometry: Geometry,
    dtype: npt.DTypeLike,
    fields: Mapping[str, str] | None = None,
    made_with: Mapping[str, str] | None = None,
    scale: float = 1.0,
) -> None:
    """Write a volume as .nrrd, .nii, .nii.gz, .mha or .mhd.

    Parameters
    ----------
    path : str or Path
        Path whose extension selects the format.
    slabs : iterable of ndarray, shape (slices, y, x)
        The volume from its first slice to its last.
    geometry : Geometry
        Preserved to the last bit in .mha and .mhd, and in .nrrd for axes along those of the patient. NRRD stores
        direction times spacing: oblique axes are read back exactly where doubles allow it, else within one unit in the
        last place. NIfTI stores 32-bit floats. Where the orientation is not known, none is written: NRRD has only
        spacings, NIfTI the codes 0, MetaImage no matrix.
    dtype : dtype
        int16, uint8 or float32.
    fields : mapping of str to str, optional
        Further keys and values of a .nrrd header, each on one line.
    made_with : mapping of str to str, optional
        Provenance of the volume. In .nrrd, .mha and .mhd these are further keys of the header. In NIfTI the name of a
        label map (key ``lungmix_image``) is the intent, and the other values are the description, cut to 80 characters.
    scale : float
        Quantity that a stored value of 1 stands for. In NIfTI this is the slope, which readers apply; in .nrrd, .mha
        and .mhd it is the key ``lungmix_scale`` of the header, unless it is 1.

    Raises
    ------
    UsageError
        If the extension or the type is not supported, or the slabs do not add up to the volume.
    """
    target = Path(path)
    extension = extension_of(target)
    dtype = np.dtype(dtype)
    if extension not in WRITTEN:
        raise UsageError(f"{target.name} has no supported extension: use one of {', '.join(WRITTEN)}")
    if fields and extension != ".nrrd":
        raise UsageError(f"{target.name} cannot have further fields: use .nrrd")
    if dtype.name not in _NAMES:
        raise UsageError(f"volumes of type {dtype} are not supported: give int16, uint8 or float32")
    blocks, about = _check_slabs(slabs, geometry, dtype, target.name), dict(made_with or {})
    if scale != 1 and not extension.startswith(".nii"):
        about[f"{PREFIX}scale"] = repr(scale)
    if extension == ".mhd":
        data = target.with_suffix(".zraw")
        with atomic_file(data) as out:
            size = _deflate(out, blocks)
        with atomic_file(target) as out:
            out.write(_meta_header(geometry, dtype, data.name, size, about))
        return
    with atomic_file(target) as out:
        if extension == ".nrrd":
            out.write(_nrrd_header(geometry, dtype, {**about, **(fields or {})}))
            _gzip(out, blocks)
        elif extension == ".mha":
            out.write(_meta_header(geometry, dtype, "LOCAL", 0, about))
            size = _deflate(out, blocks)
            # Readers need the compressed size, which is known only now; its field has a fixed width.
            out.seek(0)
            out.write(_meta_header(geometry, dtype, "LOCAL", size, about))
        else:
            head = [_nifti_header(geometry, dtype, about, scale)]
            if extension == ".nii.gz":
                _gzip(out, itertools.chain(head, blocks))
            else:
                for block in itertools.chain(head, blocks):
                    out.write(block)


def _check_slabs(slabs: Slabs, geometry: Geometry, dtype: np.dtype[Any], name: str) -> Iterator[bytes]:
    depth = 0
    for slab in slabs:
        if slab.shape[1:] != geometry.shape[1:] or slab.dtype != dtype:
            raise UsageError(f"{name}: a slab of {slab.dtype} {slab.shape} does not fit {dtype} {geometry.shape}")
        depth += len(slab)
        yield np.ascontiguousarray(slab, dtype.newbyteorder("<")).tobytes()
    if depth != geometry.shape[0]:
        raise UsageError(
            f"{name}: the slabs have {depth} slices, the geometry has {geometry.shape[0]}: give equal numbers"
        )


def _gzip(out: BinaryIO, blocks: Iterable[bytes]) -> None:
    # Without name and time in the header, equal voxels give equal bytes.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=out, mtime=0) as stream:
        for block in blocks:
            stream.write(block)


def _deflate(out: BinaryIO, blocks: Iterable[bytes]) -> int:
    deflate = zlib.compressobj(_LEVEL)
    size = 0
    for block in blocks:
        size += out.write(deflate.compress(block))
    return size + out.write(deflate.flush())


def _nrrd_header(geometry: Geometry, dtype: np.dtype[Any], fields: Mapping[str, str]) -> bytes:
    if geometry.orientation_known:
        vectors = " ".join(_vector(_nrrd_axis(geometry, axis)) for axis in range(3))
        space = "space: left-posterior-superior"
        axes, origin = f"space directions: {vectors}", [f"space origin: {_vector(geometry.origin)}"]
    else:
        space, axes, origin = "", "spacings: " + " ".join(map(repr, geometry.spacing)), []
    lines = [
        "NRRD0004",
        f"type: {_NAMES[dtype.name][0]}",
        "dimension: 3",
        *([space] if space else []),
        "sizes: " + " ".join(map(str, geometry.size)),
        axes,
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        *origin,
        *(f"{key}:={value}" for key, value in fields.items()),
    ]
    return ("\n".join(lines) + "\n\n").encode()


def _nrrd_axis(geometry: Geometry, axis: int) -> tuple[float, ...]:
    """Return the vector between neighbouring voxels of an axis, mm, from which readers recover spacing and direction.

    NRRD stores the product of direction and spacing, which readers divide by its length. Among the doubles close to the
    product there is nearly always one with exactly this quotient and length.
    """
    direction, spacing = geometry.direction[axis::3], geometry.spacing[axis]
    product = [d * spacing for d in direction]
    candidates = [sorted({_ulps(v, n) for n in range(-3, 4)}, key=lambda w, v=v: abs(w - v)) for v in product]  # type: ignore[misc]
    best, least_error = tuple(product), float("inf")
    for vector in itertools.product(*candidates):
        length = float(np.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2]))
        scale = 1.0 / length
        error = abs(length - spacing) + sum(abs(v * scale - d) for v, d in zip(vector, direction, strict=True))
        if error < least_error:
            best, least_error = vector, error
        if error == 0:
            break
    return best


def _ulps(value: float, steps: int) -> float:
    if value == 0:
        return value
    return value + steps * float(np.spacing(value))


def _vector(values: Iterable[float]) -> str:
    return "(" + ",".join(repr(float(v)) for v in values) + ")"


def _meta_header(
    geometry: Geometry, dtype: np.dtype[Any], data: str, compressed: int, about: Mapping[str, str]
) -> bytes:
    columns = [geometry.direction[row * 3 + column] for column in range(3) for row in range(3)]
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {compressed:020d}",
        *(["TransformMatrix = " + " ".join(map(repr, columns))] if geometry.orientation_known else []),
        "Offset = " + " ".join(map(repr, geometry.origin)),
        "CenterOfRotation = 0 0 0",
        "ElementSpacing = " + " ".join(map(repr, geometry.spacing)),
        "DimSize = " + " ".join(map(str, geometry.size)),
        f"ElementType = {_NAMES[dtype.name][1]}",
        *(f"{key} = {value}" for key, value in about.items()),
        f"ElementDataFile = {data}",
    ]
    # The name of the data file keeps its bytes.
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _nifti_header(geometry: Geometry, dtype: np.dtype[Any], about: Mapping[str, str], scale: float) -> bytes:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    affine[:3, 3] = geometry.origin
    affine[:2] *= -1  # axes of NIfTI point right and anterior, those of ITK left and posterior
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(geometry.size)
    header.set_zooms(geometry.spacing)
    header.set_xyzt_units("mm")
    if geometry.orientation_known:
        header.set_qform(affine, code="scanner")
        header.set_sform(affine, code="scanner")
    header.set_slope_inter(scale, 0)
    texts = {key.removeprefix(PREFIX): value for key, value in about.items()}
    header["intent_name"] = texts.pop("image", "").encode()
    header["descrip"] = "; ".join(f"{key} {value}" for key, value in texts.items())[:80].encode()
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    stream = BytesIO()
    header.write_to(stream)
    return stream.getvalue().ljust(352, b"\0")
