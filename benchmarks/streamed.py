"""A cohort like that of the paper whose scans exist only for a short time: a process makes each just before it is read.

Scans are compressed NRRD of 512 x 512 pixels with 248 to 1,251 slices, 51,247 in all, from two scanners. Their lungs
are filled with blobs of tissues, some millimetres wide. HU of a tissue are drawn from its Gaussian, so that the mixture
of the true lungs is known, for each scan and for all together. A compiled kernel makes a slice in about a millisecond.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from isal import igzip
from scipy.ndimage import gaussian_filter

from lungmix.formats import Scan, find_scans
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED
from lungmix.phantom.cohort import SIEMENS, TOSHIBA
from lungmix.privacy.acquisition import Acquisition

SCANS, SLICES, SHORTEST, LONGEST, OF_FIRST_SCANNER = 62, 51_247, 248, 1_251, 46
EDGE = 512
PIXEL_MM = 0.7
SEED = 62
MEANS, SDS = np.array(PUBLISHED.means), np.sqrt(PUBLISHED.variances)
SCORE_LIMITS = (0.0, 5.0, 25.0, 50.0, 75.0)
_POOL, _TILE = 1 << 20, (128, 256, 256)
_AT_ONCE = 32
_POLL = 0.05
_LAST = "done"
_KERNEL = {"cache": True, "nogil": True, "boundscheck": False}


@dataclass(frozen=True)
class Design:
    """Parameters of one scan of the cohort.

    Attributes
    ----------
    name : str
        Case name.
    slices : int
        Number of slices of 512 x 512 pixels.
    weights : tuple of float
        Intended fractions of the five tissues in its lungs.
    score : int
        Simulated score S of a radiologist, 0 to 5, who judges the involvement by eye.
    size : float
        Size of the lungs as a multiple of the usual one.
    acquisition : Acquisition
        The scanner.
    seed : int
        Seed of all random numbers of the scan.
    """

    name: str
    slices: int
    weights: tuple[float, ...]
    score: int
    size: float
    acquisition: Acquisition
    seed: int

    @property
    def geometry(self) -> Geometry:
        """Geometry of the scan: the thorax is about 35 cm high, and slices are at most 1 mm apart."""
        apart = round(float(np.clip(350 / self.slices, 0.3, 1.0)), 2)
        return Geometry((EDGE, EDGE, self.slices), (PIXEL_MM, PIXEL_MM, apart), (-179.2, -179.2, -300.0))


def paper_cohort(fraction: float = 1.0) -> list[Design]:
    """Return the designs of the cohort, or of evenly chosen scans with about this fraction of its slices."""
    random = np.random.default_rng(SEED)
    numbers = _slice_numbers(random)
    # Each scan has a severity; the pooled fractions of tissues are those of the publication.
    severity = random.beta(0.9, 1.6, SCANS)
    published = np.array(PUBLISHED.weights) / sum(PUBLISHED.weights)
    severity *= published[2:].sum() / np.average(severity, weights=numbers)
    severity = np.clip(severity, 0.01, 0.8)
    designs = []
    for index, (slices, sick) in enumerate(zip(numbers, severity, strict=True)):
        parts = random.dirichlet(published[2:] / published[2:].sum() * 30)
        air = (1 - sick) * np.clip(random.normal(0.484, 0.06), 0.3, 0.65)
        seen = 100 * sick + random.normal(0, 5)
        designs.append(
            Design(
                name=f"case-{index + 1:03d}",
                slices=int(slices),
                weights=(float(air), float(1 - sick - air), *map(float, sick * parts)),
                score=int(np.searchsorted(SCORE_LIMITS, max(seen, 0.0), side="left")),
                size=float(random.uniform(0.9, 1.1)),
                acquisition=SIEMENS if index * 29 % SCANS < OF_FIRST_SCANNER else TOSHIBA,
                seed=SEED * 1000 + index,
            )
        )
    if fraction >= 1:
        return designs
    count = max(2, round(SCANS * fraction))
    return [designs[round(i)] for i in np.linspace(0, SCANS - 1, count)]


def write_scores(path: Path, designs: list[Design]) -> None:
    """Write the radiologist's scores as a table."""
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["case", "S"])
        table.writerows([one.name, one.score] for one in designs)


def streamed(design: Design, folder: Path) -> Scan:
    """Return a scan whose file is made during the run, and deleted after it was read."""
    path = str(folder / f"{design.name}.nrrd")
    digest = f"{design.seed}-{design.slices}"
    return Scan(
        name=design.name,
        path=path,
        kind="nrrd",
        geometry=design.geometry,
        acquisition=design.acquisition,
        fingerprint=digest,
        key=digest,
        files=(path,),
        reader=read_streamed,
    )


def read_streamed(streamed: Scan, thickness: int) -> Iterator[np.ndarray]:
    """Wait for the file of a scan, then yield its slabs as `Scan.reader` does."""
    path, start = Path(streamed.path), time.perf_counter()
    while not path.exists():
        if (path.parent / _LAST).exists():
            raise RuntimeError(f"{path.name} was not made")
        time.sleep(_POLL)
    waited = time.perf_counter() - start
    (scan,) = find_scans(path)
    # What ITK makes of a direction cosine of 1 can differ in its last digit.
    assert scan.geometry.size == streamed.geometry.size
    assert np.allclose(scan.geometry.spacing, streamed.geometry.spacing, rtol=1e-12)
    assert np.allclose(scan.geometry.direction, streamed.geometry.direction, atol=1e-12)
    yield from scan.slabs(thickness)
    path.with_suffix(".read").write_text(json.dumps({"waited": waited, "bytes": path.stat().st_size}))
    path.unlink()


class Generator:
    """Process that makes the scans, a few ahead of the scans that are read.

    Attributes
    ----------
    pid : int
        Number of the process.
    """

    def __init__(self, designs: list[Design], folder: Path, ahead: int = 3):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._designs = designs
        self._process = multiprocessing.get_context("spawn").Process(
            target=_generate, args=(designs, folder, ahead), daemon=True
        )

    def __enter__(self) -> Generator:
        self._process.start()
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()

    def wait_for_first(self) -> None:
        """Wait until the first scan was made; by then the process has loaded and compiled everything that it needs."""
        while not (self._folder / f"{self._designs[0].name}.nrrd").exists():
            if not self._process.is_alive():
                raise RuntimeError("the process that makes the scans has ended")
            time.sleep(_POLL)

    def truth(self) -> list[dict[str, object]]:
        """Figures of each scan that was made: ``seconds``, ``cpu``, ``peak``, voxels and sums of HU of its tissues."""
        return [json.loads((self._folder / f"{one.name}.truth").read_text()) for one in self._designs]

    def reading(self) -> list[dict[str, float]]:
        """Figures of each scan that was read: seconds that a worker ``waited`` for it, and ``bytes`` of its file."""
        return [json.loads((self._folder / f"{one.name}.read").read_text()) for one in self._designs]


def _generate(designs: list[Design], folder: Path, ahead: int) -> None:
    pools, tile = _pools(), _field()
    try:
        for design in designs:
            while sum(1 for _ in folder.glob("*.nrrd")) >= ahead:
                time.sleep(_POLL)
            start, used = time.perf_counter(), time.process_time()
            path = folder / f"{design.name}.nrrd"
            found = _write(path.with_suffix(".partial"), design, pools, tile)
            found |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
            path.with_suffix(".truth").write_text(json.dumps(found))
            path.with_suffix(".partial").replace(path)
    finally:
        (folder / _LAST).touch()


def _write(path: Path, design: Design, pools: np.ndarray, tile: np.ndarray) -> dict[str, object]:
    random = np.random.default_rng(design.seed)
    geometry = design.geometry
    x, y, z = geometry.spacing
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {EDGE} {EDGE} {design.slices}\nspace directions: ({x!r},0,0) (0,{y!r},0) (0,0,{z!r})\n"
        "kinds: domain domain domain\nendian: little\nencoding: gzip\n"
        f"space origin: ({','.join(map(repr, geometry.origin))})\n\n"
    )
    plan = _plan(design)
    cuts = np.minimum(np.cumsum(design.weights)[:4] * 65536, 65535).astype(np.int64)
    shift = random.integers(0, [*_TILE])
    voxels, sums, squares = np.zeros(5, np.int64), np.zeros(5, np.int64), np.zeros(5, np.int64)
    with path.open("wb") as file:
        file.write(header.encode())
        with igzip.IGzipFile(filename="", mode="wb", compresslevel=0, fileobj=file, mtime=0) as stream:
            for first in range(0, design.slices, _AT_ONCE):
                depth = min(_AT_ONCE, design.slices - first)
                slab = np.empty((depth, EDGE, EDGE), np.int16)
                starts = random.integers(0, _POOL, (depth, EDGE))
                heights = (np.arange(first, first + depth) + 0.5) / design.slices * 2 - 1
                layers = ((np.arange(first, first + depth) * z / PIXEL_MM).astype(np.int64) + shift[0]) % _TILE[0]
                _fill(slab, *plan, heights, layers, shift[1:], tile, cuts, pools, starts, voxels, sums, squares)
                stream.write(slab.data)
    return {"voxels": voxels.tolist(), "sums": sums.tolist(), "squares": squares.tolist()}


def _pools() -> np.ndarray:
    """Return random HU of each tissue and of the surroundings of the lungs: int16, shape (6, 2**20)."""
    random = np.random.default_rng(SEED)
    means, sds = np.append(MEANS, 0)[:, None], np.append(SDS, 12)[:, None]
    drawn = random.standard_normal((6, _POOL), np.float32) * sds + means
    return np.rint(np.clip(drawn, -3000, 3000)).astype(np.int16)


def _field() -> np.ndarray:
    """Return a smooth periodic field whose values are uniformly distributed: uint16."""
    smooth = gaussian_filter(np.random.default_rng(SEED + 1).standard_normal(_TILE, np.float32), 6, mode="wrap")
    ranks = np.empty(smooth.size, np.int64)
    ranks[np.argsort(smooth, axis=None)] = np.arange(smooth.size)
    return (ranks * 65536 // smooth.size).astype(np.uint16).reshape(_TILE)


def _plan(design: Design) -> tuple[np.ndarray, ...]:
    """Return what all slices share: thorax, ribs, trachea, and how far each pixel of a lung is from its centre."""
    u = (np.arange(EDGE, dtype=np.float32) + 0.5) / EDGE - 0.5
    v = u[:, None]
    body = (u / 0.46) ** 2 + (v / 0.36) ** 2
    hu = np.full((EDGE, EDGE), -1000, np.int16)
    hu[body < 1] = -90
    hu[body < 0.88] = 45
    hu[((u / 0.05) ** 2 + ((v - 0.26) / 0.045) ** 2) < 1] = 380
    ribs = np.where((body > 0.72) & (body < 0.82), np.abs(u) * 25, np.nan).astype(np.float32)
    width = EDGE * PIXEL_MM
    centre = u**2 + (v - 0.03) ** 2
    airway = (centre < (9 / width) ** 2).astype(np.uint8)
    a, b = 0.13 * np.float32(design.size), 0.22 * np.float32(design.size)
    lung = np.minimum(*(((u - x) / a) ** 2 + (v / b) ** 2 for x in (-0.185, 0.185)))
    lung[centre < (13 / width) ** 2] = 9
    return hu, ribs, airway, lung.astype(np.float32)


@numba.njit(**_KERNEL)
def _fill(
    slab, thorax, ribs, airway, lung, heights, layers, shift, tile, cuts, pools, starts, voxels, sums, squares
):  # pragma: no cover - compiled
    depth, ny, nx = slab.shape
    mask = pools.shape[1] - 1
    for k in range(depth):
        height = heights[k]
        inside = 1 - ((height - 0.1) / 0.75) ** 2
        # Slices run to the head, where the trachea is.
        trachea = height > 0.3
        for j in range(ny):
            at = starts[k, j]
            row = tile[layers[k], (j + shift[0]) % tile.shape[1]]
            for i in range(nx):
                at += 1
                if lung[j, i] < inside:
                    value = row[(i + shift[1]) % row.size]
                    tissue = 0
                    while tissue < 4 and value >= cuts[tissue]:
                        tissue += 1
                    hu = pools[tissue, at & mask]
                    voxels[tissue] += 1
                    sums[tissue] += hu
                    squares[tissue] += np.int64(hu) * hu
                elif trachea and airway[j, i]:
                    hu = -1000 + pools[5, at & mask]
                elif not np.isnan(ribs[j, i]) and np.sin(height * 40 + ribs[j, i]) > 0.35:
                    hu = 320 + pools[5, at & mask]
                else:
                    hu = thorax[j, i] + pools[5, at & mask]
                slab[k, j, i] = hu


def _slice_numbers(random: np.random.Generator) -> np.ndarray:
    """Return the numbers of slices of scans, whose minimum, maximum and sum are those of the publication."""
    numbers = np.sort(np.rint(random.triangular(SHORTEST, 950, LONGEST, SCANS))).astype(int)
    numbers[0], numbers[-1] = SHORTEST, LONGEST
    while (rest := SLICES - numbers.sum()) != 0:
        inner = numbers[1:-1]
        step = np.sign(rest) * max(abs(rest) // len(inner), 1)
        for index in random.permutation(len(inner)):
            if SLICES - numbers.sum() == 0:
                break
            if abs(step) > abs(SLICES - numbers.sum()):
                step = SLICES - numbers.sum()
            inner[index] = np.clip(inner[index] + step, SHORTEST, LONGEST)
    return random.permutation(numbers)


def main():
    """Print the designs of the cohort."""
    for one in paper_cohort():
        print(one.name, one.slices, one.geometry.spacing, one.score, np.round(one.weights, 3))


if __name__ == "__main__":
    main()
