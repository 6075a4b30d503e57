"""Segmenters by name, from this package or from entry points of other packages; each worker builds one object."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from lungmix._version import __version__
from lungmix.errors import LungmixError, SegmenterError, UsageError, mark_path, mark_untrusted
from lungmix.segmenters.base import Segmenter
from lungmix.tissue import LOBES

GROUP = "lungmix.masks"
"""Group of entry points, by which other packages provide subclasses of `Segmenter`."""

BUILT_IN = {
    "lungmask": "lungmix.segmenters.lungmask:LungmaskSegmenter",
    "lungmask-lobes": "lungmix.segmenters.lungmask:LobesSegmenter",
}

REGIONS = ("right", "left", "airway", "elsewhere", "lung", *(lobe.region for lobe in LOBES))

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class SegmenterSpec:
    """Segmenter that the user chose, with everything that its masks depend on.

    Attributes
    ----------
    name : str
        Name of the entry point, or ``"lungmask"``.
    version : str
        Version that masks depend on: the result of `Segmenter.version`, or else the version of the package with the
        entry point.
    weights : str or None
        Path of the weights file; None if the segmenter needs no weights.
    weights_digest : str or None
        SHA-256 of the weights file.
    device : str
        Device on which the segmenter runs, such as ``"cpu"`` or ``"cuda:0"``.
    """

    name: str
    version: str
    weights: str | None = None
    weights_digest: str | None = None
    device: str = "cpu"

    @property
    def identity(self) -> dict[str, Any]:
        """JSON-ready dictionary of everything that masks depend on; the path of the weights is not in it."""
        return {
            "segmenter": self.name, "version": self.version, "weights": self.weights_digest, "device": self.device,
        }  # fmt: skip

    @property
    def kind(self) -> type[Segmenter]:
        """Class of the segmenter."""
        return _load(self.name)

    @contextmanager
    def loaded(self) -> Iterator[Segmenter]:
        """Yield the object of this segmenter; no other thread of this process can use it within the ``with`` block.

        The object is built on first use, and kept until another segmenter is used.

        Raises
        ------
        SegmenterError
            If this process lacks the segmenter, has another version of it, or if its weights are missing or differ.
        """
        with _LOCK:
            if _LOADED.get("spec") != self:
                # The earlier object is removed first, so that memory never has to hold two.
                _LOADED.clear()
                _LOADED.update(segmenter=self._build(), spec=self)
            yield _LOADED["segmenter"]

    def _build(self) -> Segmenter:
        try:
            kind = self.kind
            seen = _version_of(self.name, kind)
        except UsageError as error:
            raise SegmenterError(f"a worker cannot make masks by {self.name}: {error.raw_message}") from None
        if seen != self.version:
            raise SegmenterError(
                f"a worker has version {seen} of {self.name}, and this program {self.version}: install the same on both"
            )
        weights = None if self.weights is None else Path(self.weights)
        if weights is not None and _digest(weights) != self.weights_digest:
            raise SegmenterError(
                f"the weights {mark_path(weights)} are missing on a worker or differ from those of this program: "
                "give a file that all workers can read, `mask_weights=FILE`"
            )
        try:
            return kind(weights, self.device)
        except LungmixError:
            raise
        except Exception as error:
            raise SegmenterError(
                f"the segmenter {self.name} cannot be loaded ({type(error).__name__}: {mark_untrusted(error)}): "
                "check its installation and its weights"
            ) from None


_LOCK = threading.Lock()
_LOADED: dict[str, Any] = {}


def find_segmenter(name: str, weights: str | Path | None = None, device: str = "cpu") -> SegmenterSpec:
    """Return the segmenter with a name, with its version and the digest of its weights.

    Parameters
    ----------
    name : str
        Name of an entry point of the group `GROUP`, or ``"lungmask"``.
    weights : str or Path, optional
        File with weights; by default the class finds it, if it needs one.
    device : str
        Device, such as ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    UsageError
        If there is no such segmenter, it cannot be used, or its weights are missing.
    """
    kind = _load(name)
    if device.partition(":")[0] not in kind.devices:
        raise UsageError(f"{name} knows no device {device!r}: choose one of {', '.join(kind.devices)}")
    given = None if weights is None else Path(weights).expanduser().absolute()
    if given is not None and not given.is_file():
        raise UsageError(f"there are no weights in {mark_path(given)}: check `mask_weights`")
    file = kind.find_weights(given)
    digest = None if file is None else _digest(file)
    if file is not None and digest is None:
        raise UsageError(f"the weights {mark_path(file)} cannot be read: check `mask_weights`")
    return SegmenterSpec(name, _version_of(name, kind), None if file is None else str(file), digest, device)


def installed_segmenters() -> list[str]:
    """Return the names of the segmenters of this environment."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP) if _NAME.fullmatch(point.name))})


def library_versions(kind: type[Segmenter]) -> dict[str, str]:
    """Return the versions of those packages in `Segmenter.libraries` that are installed."""
    versions = {}
    for library in kind.libraries:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def _load(name: str) -> type[Segmenter]:
    """Return the class of a segmenter.

    Raises
    ------
    UsageError
        If there is no segmenter of this name, or it cannot be imported or used.
    """
    point = _entry_point(name)
    if point is None and name not in BUILT_IN:
        raise UsageError(
            f"there is no segmenter {name!r}: choose one of {', '.join(installed_segmenters())}, or install the "
            f"package that has it as an entry point of the group {GROUP}"
        )
    try:
        if point is not None:
            kind = point.load()
        else:
            module, _, attribute = BUILT_IN[name].partition(":")
            kind = getattr(import_module(module), attribute)
    except Exception as error:
        raise UsageError(
            f"the segmenter {name} cannot be imported ({type(error).__name__}: {mark_untrusted(error)}): install the "
            "package again, with what it needs"
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, Segmenter)):
        raise UsageError(
            f"the entry point {name} of the group {GROUP} is no subclass of Segmenter: correct the package"
        )
    _check_class(name, kind)
    return kind


def _check_class(name: str, kind: type[Segmenter]) -> None:
    unknown = sorted({*kind.labels.values()} - {*REGIONS})
    numbers = [number for number in kind.labels if not 1 <= number <= 255]
    if unknown or numbers or not kind.labels:
        raise UsageError(
            f"the labels of {name} are not understood: give each number, from 1 to 255, one of the regions "
            f"{', '.join(REGIONS)}"
        )
    if kind.batch_slices < 1:
        raise UsageError(f"batch_slices of {name} cannot be {kind.batch_slices}: set it to 1 or more")


def _entry_point(name: str) -> EntryPoint | None:
    points = [point for point in entry_points(group=GROUP) if point.name == name and _NAME.fullmatch(name)]
    return points[0] if points else None


def _version_of(name: str, kind: type[Segmenter]) -> str:
    stated = kind.version()
    if stated is not None:
        return stated
    point = _entry_point(name)
    return __version__ if point is None or point.dist is None else point.dist.version


def _digest(file: Path) -> str | None:
    """Return the SHA-256 digest of a file; None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()
