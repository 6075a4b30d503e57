"""Cohorts of phantoms, with simulated scanners, ages and radiological scores."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lungmix.errors import UsageError
from lungmix.kernels.severity import severity_scores
from lungmix.phantom.scene import Phantom
from lungmix.phantom.write import write_phantom
from lungmix.privacy.acquisition import Acquisition

SIEMENS = Acquisition("CT", "Siemens", "Somatom Go.now", "Br36", 110.0, 0.3)
TOSHIBA = Acquisition("CT", "Toshiba", "Aquilion ONE", "FC08", 120.0, 0.4)
_SIEMENS_SHARE = 46 / 62
_FORMATS = ("nrrd", "nii.gz", "mha", "dicom")


@dataclass(frozen=True)
class Patient:
    """A phantom of a cohort, with the age, sex and score of its simulated patient.

    Attributes
    ----------
    phantom : Phantom
        The scan.
    age : int
        Age in years.
    sex : {"F", "M"}
        Sex.
    score : int
        Radiological score S, 0 to 5.
    patient : int
        Number of the patient, from 1; 0 if unknown.
    days : int
        Days since the first scan of the patient.
    """

    phantom: Phantom
    age: int
    sex: str
    score: int
    patient: int = 0
    days: int = 0


@dataclass(frozen=True)
class Cohort:
    """Phantoms ``case-001``, ``case-002`` ... of mild to severe disease.

    Attributes
    ----------
    n : int
        Number of patients; each has a first scan.
    seed : int
        Seed of the cohort.
    shape, spacing
        Shape and spacing of every scan; see `Phantom`.
    traps : frozenset of str
        Traps of every scan; see `lungmix.phantom.TRAPS`.
    followups : int
        Number of patients, from the first one, who have a second scan: the same lungs after two to four weeks, with
        more or less disease. These scans follow the first scans of all patients.
    """

    n: int
    seed: int = 0
    shape: tuple[int, int, int] = (160, 256, 256)
    spacing: tuple[float, float, float] = (1.4, 1.4, 1.9)
    traps: frozenset[str] = frozenset()
    followups: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.followups <= self.n:
            raise UsageError(
                f"{self.followups} of {self.n} patients cannot have a second scan: give a number from 0 to {self.n}"
            )

    def __len__(self) -> int:
        return self.n + self.followups

    def __iter__(self) -> Iterator[Patient]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: int) -> Patient:
        """Return scan number `index`, counted from 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index >= self.n:
            return self._second_scan(index)
        random = np.random.default_rng([self.seed, index])
        diseased = float(random.beta(1.1, 2.5)) * 0.8
        parts = random.dirichlet((6, 2, 2))
        dense = diseased * parts + np.array([0.02, 0.01, 0.03])
        air = (1 - dense.sum()) * random.uniform(0.35, 0.55)
        weights = (air, 1 - dense.sum() - air, *dense)
        noisy = 100 * diseased + random.normal(0, 4)
        score = int(severity_scores([max(noisy, 0.0)])[0])
        scanner = SIEMENS if (index * 29) % 62 < 62 * _SIEMENS_SHARE else TOSHIBA
        phantom = Phantom(
            shape=self.shape,
            spacing=self.spacing,
            seed=int(random.integers(1 << 31)),
            weights=tuple(float(w) for w in weights),
            traps=self.traps,
            name=f"case-{index + 1:03d}",
            # Slices are as thick as their distance, so that there are no gaps between them.
            acquisition=replace(scanner, slice_thickness=self.spacing[2]),
        )
        age = int(np.clip(random.normal(56, 15), 20, 83))
        return Patient(phantom, age, "FM"[int(random.integers(2))], score, index + 1)

    def _second_scan(self, index: int) -> Patient:
        first = self[index - self.n]
        random = np.random.default_rng([self.seed, index])
        dense = np.array(first.phantom.weights[2:]) * random.uniform(0.4, 1.5)
        dense *= min(1.0, 0.85 / dense.sum())
        air = (1 - dense.sum()) * first.phantom.weights[0] / sum(first.phantom.weights[:2])
        weights = (air, 1 - dense.sum() - air, *dense)
        phantom = replace(first.phantom, weights=tuple(float(w) for w in weights), name=f"case-{index + 1:03d}")
        noisy = phantom.lung_involvement - 6 + random.normal(0, 4)
        score = int(severity_scores([max(noisy, 0.0)])[0])
        return Patient(phantom, first.age, first.sex, score, first.patient, int(random.integers(14, 29)))


def write_cohort(folder: str | Path, cohort: Sequence[Patient] | Cohort, format: str = "nrrd") -> list[Path]:
    """Write the scans of a cohort and ``scores.csv``; and ``patients.csv``, if a patient has several scans.

    Parameters
    ----------
    folder : str or Path
        Folder, created if missing.
    cohort : Cohort or sequence of Patient
        Scans to write.
    format : {"nrrd", "nii.gz", "mha", "dicom", "mixed"}
        File format; ``mixed`` alternates between all formats.

    Returns
    -------
    list of Path
        File, or folder of DICOM files, of each scan.
    """
    if format != "mixed" and format not in _FORMATS:
        raise UsageError(f"there is no format {format!r}: choose one of {', '.join(_FORMATS)} or mixed")
    base = Path(folder)
    base.mkdir(parents=True, exist_ok=True)
    paths = []
    with (base / "scores.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["case", "score", "age", "sex", "true_li"])
        for index, patient in enumerate(cohort):
            kind = _FORMATS[index % len(_FORMATS)] if format == "mixed" else format
            phantom = patient.phantom
            path = base / (phantom.name if kind == "dicom" else f"{phantom.name}.{kind}")
            write_phantom(path, phantom)
            paths.append(path)
            table.writerow([phantom.name, patient.score, patient.age, patient.sex, f"{phantom.lung_involvement:.2f}"])
    numbers = [patient.patient for patient in cohort if patient.patient]
    if len(set(numbers)) < len(numbers):
        with (base / "patients.csv").open("w", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(["case", "patient", "days"])
            table.writerows([patient.phantom.name, patient.patient, patient.days] for patient in cohort)
    return paths
