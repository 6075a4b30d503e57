"""Measure the registration of scans on pairs whose later scan is the first one, deformed by a known field.

``python benchmarks/registration.py FIRST SECOND ...`` takes chest CT of different patients as DICOM folders or files.
Each scan is deformed as by breathing: the bases of the lungs move by 10 or 25 mm, the ventral parts less, on top of a
smooth random field. The deformed scan is masked and labelled as a scan of its own, so that errors contain those of the
masks. Landmarks are random points of its lungs. Other pairs are a scan and itself, a deformed scan without the upper
fifth of the lungs, and scans of different patients.

The exact change of the lung involvement is that of the known field: voxels of the later lungs count with the volume
that they have in the first scan. It differs from 0 because interpolation blurs HU, which a registration cannot undo.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from figures import Check, Sheet, Table

SEED = 3
LANDMARKS = 1000
MOTIONS = (("bases move 10 mm", 10.0), ("bases move 25 mm", 25.0))
SHORT = "25 mm, upper fifth missing"
ITSELF = "itself"
SLAB = 8
MOST_ERROR_MM, MOST_CHANGE = 2.0, 0.5


@dataclass
class Motion:
    """Map from points of a deformed scan to those of the first scan, mm in LPS.

    Attributes
    ----------
    low, high : ndarray of float64, shape (3,)
        Corners of the lungs.
    mm : float
        Motion of the bases.
    wave : ndarray of float64, shape (3, n, n, n)
        Smooth random displacements on a coarse grid over the lungs, mm.
    """

    low: np.ndarray
    high: np.ndarray
    mm: float
    wave: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the points of the first scan for points of shape (3, ...)."""
        shape = (3, *([1] * (points.ndim - 1)))
        place = (points - self.low.reshape(shape)) / (self.high - self.low).reshape(shape)
        moved = np.array(points)
        # From the head, where nothing moves, to the feet; dorsal parts move more.
        depth = np.clip(1 - place[2], 0, 1.2)
        moved[2] += self.mm * depth**1.5 * (0.8 + 0.4 * np.clip(place[1], 0, 1))
        moved[1] += 0.2 * self.mm * depth * np.clip(1 - place[1], 0, 1)
        n = self.wave.shape[1]
        index = np.clip(place, -0.2, 1.2) * (n - 5) + 2
        for axis in range(3):
            moved[axis] += ndimage.map_coordinates(self.wave[axis], index, order=3, mode="nearest")
        return moved


def motion_of(lung: np.ndarray, geometry, mm: float) -> Motion:
    z, y, x = (np.flatnonzero(lung.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    corners = np.array([[x[0], y[0], z[0]], [x[-1], y[-1], z[-1]]], np.float64)
    points = np.sort(corners @ columns_of(geometry).T + np.asarray(geometry.origin), axis=0)
    wave = np.random.default_rng(SEED).normal(0, 0.2 * mm, (3, 9, 9, 9))
    return Motion(points[0], points[1], mm, wave)


def columns_of(geometry) -> np.ndarray:
    return np.reshape(geometry.direction, (3, 3)) * geometry.spacing


def points_of(geometry, start: int, stop: int) -> np.ndarray:
    """Return the points (x, y, z) of the voxels of some slices: shape (3, slices, y, x)."""
    _, height, width = geometry.shape
    z, y, x = np.meshgrid(np.arange(start, stop), np.arange(height), np.arange(width), indexing="ij")
    return np.einsum("ij,jzyx->izyx", columns_of(geometry), np.stack([x, y, z]).astype(np.float64)) + np.reshape(
        geometry.origin, (3, 1, 1, 1)
    )


def deformed(hu: np.ndarray, geometry, motion: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return HU at the moved points of all voxels, by cubic interpolation."""
    inverse = np.linalg.inv(columns_of(geometry))
    coefficients = ndimage.spline_filter(hu.astype(np.float32), 3, output=np.float32)
    out = np.empty_like(hu)
    for start in range(0, len(hu), SLAB):
        stop = min(start + SLAB, len(hu))
        moved = motion(points_of(geometry, start, stop)) - np.reshape(geometry.origin, (3, 1, 1, 1))
        index = np.einsum("ij,jzyx->izyx", inverse, moved)[::-1]
        values = ndimage.map_coordinates(coefficients, index, order=3, mode="nearest", prefilter=False)
        out[start:stop] = np.clip(np.rint(values), -1024, 3071)
    return out


def volumes_in_first(points: np.ndarray, motion) -> np.ndarray:
    """Return the volume in the first scan per volume in the deformed one at points (3, n), by differences of 1 mm."""
    rows = [motion(points + step) - motion(points - step) for step in np.eye(3)[..., None]]
    return np.abs(np.linalg.det(np.moveaxis(np.stack(rows), (0, 1), (-1, -2)) / 2))


def exact_involvement(case, motion) -> float:
    """Return the lung involvement of a deformed scan, in percent of the volumes of the first scan."""
    tissue, involved, total = np.asarray(case.tissue), 0.0, 0.0
    columns, origin = columns_of(case.geometry), np.reshape(case.geometry.origin, (3, 1))
    for start in range(0, len(tissue), SLAB):
        z, y, x = np.nonzero(tissue[start : start + SLAB])
        if len(z):
            labels = tissue[start + z, y, x]
            volumes = volumes_in_first(columns @ np.stack([x, y, start + z]).astype(np.float64) + origin, motion)
            involved, total = involved + volumes[labels > 2].sum(), total + volumes.sum()
    return 100 * involved / total


def landmark_errors(first, later, motion) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of landmarks before and after the registration, mm."""
    lung = np.asarray(later.lung)
    inside = np.flatnonzero(lung)
    chosen = np.random.default_rng(SEED).choice(inside, min(LANDMARKS, len(inside)), replace=False)
    index = np.stack(np.unravel_index(chosen, lung.shape))[::-1].astype(np.float64)
    points = columns_of(later.geometry) @ index + np.reshape(later.geometry.origin, (3, 1))
    sources = motion(points)
    transform = later.transform_from_first()
    reached = np.array([transform.TransformPoint(point) for point in sources.T.tolist()]).T
    return np.linalg.norm(sources - points, axis=0), np.linalg.norm(reached - points, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("scans", nargs="+", type=Path, help="chest CT of different patients")
    parser.add_argument("--out", type=Path, help="folder for registration.json and registration.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        sheet = measure([path.resolve() for path in chosen.scans], Path(folder))
    sheet.show()
    sheet.save(chosen.out)


def measure(scans: list[Path], folder: Path) -> Sheet:
    import lungmix
    from lungmix.formats import write_image
    from lungmix.pipeline import Pipeline

    motions, kinds = {}, {}
    patients = ["case,patient,days"]
    with lungmix.connect(workers=2, memory_limit="4GB") as client:
        cohort = lungmix.open_cohort(folder / "s.zarr", "a")
        pipeline = Pipeline(client, cohort)
        result = pipeline.run(scans, model="published")
        assert not result.failed, result.failed
        firsts, made = sorted(cohort), folder / "made"
        made.mkdir()
        for number, name in enumerate(firsts):
            case = cohort[name]
            hu, lung, geometry = np.asarray(case.ct), np.asarray(case.lung), case.geometry
            write_image(made / f"{number}-a.nrrd", [hu], geometry, np.int16)
            for letter, (kind, mm) in zip("bc", MOTIONS, strict=True):
                motion = motion_of(lung, geometry, mm)
                moved = deformed(hu, geometry, motion)
                write_image(made / f"{number}-{letter}.nrrd", [moved], geometry, np.int16)
                motions[(name, kind)] = motion
            cut, top = _without_upper_fifth(moved, lung, geometry)
            write_image(made / f"{number}-d.nrrd", [cut], top, np.int16)
            motions[(name, SHORT)] = motion
            print(f"{scans[number].name} is deformed", file=sys.stderr, flush=True)
        result = pipeline.run([made], model="published")
        assert not result.failed, result.failed
        later = sorted(set(cohort) - set(firsts))
        for number, name in enumerate(firsts):
            patients.append(f"{name},{number},0")
            for day, kind in enumerate((ITSELF, *(kind for kind, _ in MOTIONS), SHORT), start=1):
                made_case = later[4 * number + day - 1]
                patients.append(f"{made_case},{number},{day}")
                kinds[made_case] = (name, kind)
        (folder / "patients.csv").write_text("\n".join(patients) + "\n")
        same = pipeline.followup(folder / "patients.csv", register="deformable")
        rows = [
            row_of(cohort, case, *kinds[case], motions, same.rows, scans[firsts.index(kinds[case][0])].name)
            for case in later
        ]
        others = [f"{name},x{k},{day}" for k in range(len(firsts) - 1) for day, name in enumerate(firsts[k : k + 2])]
        different = []
        for k in range(len(firsts) - 1):
            pair = others[2 * k : 2 * k + 2]
            (folder / "others.csv").write_text("\n".join(["case,patient,days", *pair]) + "\n")
            outcome = pipeline.followup(folder / "others.csv", register="deformable")
            record = cohort[firsts[k + 1]].stages["register"]
            reason = outcome.failed.get(firsts[k + 1])
            different.append([
                f"{scans[k].name}, {scans[k + 1].name}", f"{record.get('dice', float('nan')):.3f}",
                f"{record.get('similarity', float('nan')):.2f}", "no" if reason else "yes",
            ])  # fmt: skip
    return sheet_of(rows, different)


def _without_upper_fifth(hu, lung, geometry):
    """Return a scan and its geometry without the slices of the upper fifth of the lungs, wherever the head is."""
    from dataclasses import replace

    slices = np.flatnonzero(lung.any(axis=(1, 2)))
    fifth = int(0.2 * (slices[-1] - slices[0]))
    if geometry.direction[8] > 0:
        stop = int(slices[-1]) - fifth
        return hu[:stop], replace(geometry, size=(*geometry.size[:2], stop))
    start = int(slices[0]) + fifth
    origin = tuple(np.asarray(geometry.origin) + columns_of(geometry)[:, 2] * start)
    return hu[start:], replace(geometry, size=(*geometry.size[:2], len(hu) - start), origin=origin)


def row_of(cohort, case, first, kind, motions, table, scan) -> dict[str, object]:
    row = next(row for row in table if row["case"] == case)
    motion = motions.get((first, kind), np.array)
    before, after = landmark_errors(cohort[first], cohort[case], motion)
    exact = float("nan")
    if kind in dict(MOTIONS):
        exact = exact_involvement(cohort[case], motion) - float(cohort_involvement(cohort, first))
    return {
        "scan": scan, "pair": kind, "before": before.mean(), "mean": after.mean(),
        "p95": float(np.percentile(after, 95)), "dice": row["registration_dice"],
        "similarity": row["registration_similarity"], "change": row["change_registered_lung_involvement"],
        "exact": exact,
    }  # fmt: skip


def cohort_involvement(cohort, name) -> float:
    tissue = np.asarray(cohort[name].tissue)
    return 100 * float((tissue > 2).sum()) / float((tissue > 0).sum())


def sheet_of(rows, different) -> Sheet:
    digits = {"before": 1, "mean": 2, "p95": 2, "dice": 3, "similarity": 2, "change": 2, "exact": 2}
    titles = (
        "scan", "pair", "motion, mm", "error, mm", "95 %, mm", "Dice", "similarity", "change of LI",
        "change by the known field",
    )  # fmt: skip
    lines = [
        [str(row["scan"]), str(row["pair"]), *(_text(row[key], number) for key, number in digits.items())]
        for row in rows
    ]
    moved = [row for row in rows if row["pair"] in dict(MOTIONS)]
    deformed_rows = [row for row in rows if row["pair"] != ITSELF]
    checks = [
        Check("largest mean error of landmarks", max(row["mean"] for row in deformed_rows), MOST_ERROR_MM, "mm", False),
        Check("largest change of LI", max(abs(row["change"]) for row in moved), MOST_CHANGE, "points", False),
        Check(
            "largest difference from the change by the known field",
            max(abs(row["change"] - row["exact"]) for row in moved), MOST_CHANGE, "points", False,
        ),
    ]  # fmt: skip
    return Sheet(
        "registration",
        [
            Table("Deformed scans", titles, lines, "Motion and errors: means over 1,000 random points of the lungs."),
            Table("Different patients", ("scans", "Dice", "similarity", "registered"), different),
        ],
        checks,
        {"rows": [{key: float(value) if key in digits else value for key, value in row.items()} for row in rows]},
    )


def _text(value, digits: int) -> str:
    return "" if value != value else f"{float(value):.{digits}f}"


if __name__ == "__main__":
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    main()
