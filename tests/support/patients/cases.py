"""Patients of the table in ``docs/anatomical.md``, by name."""

from dataclasses import replace

from support.patients.disease import (
    Atelectasis,
    Bullae,
    Compressed,
    Consolidation,
    Effusion,
    Mass,
    Pneumothorax,
    WallMass,
)
from support.patients.scan import Patient

SOFT, SHARP = {"noise": 12.0, "kernel": 1.0}, {"noise": 50.0, "kernel": 0.4}
BASE = Patient(spacing=(4.0, 3.5, 3.5))


def ill(*diseases, **changes):
    return replace(BASE, diseases=diseases, **changes)


CASES = {
    "healthy, soft kernel": replace(BASE, **SOFT),
    "healthy, sharp kernel": replace(BASE, **SHARP),
    "arms down, foam table, slices of 8 mm": replace(
        BASE, spacing=(8.0, 2.5, 2.5), arms="down", half_width=235.0, table="solid"
    ),
    "thick muscle": replace(BASE, muscle=1.8),
    "high domes": replace(BASE, domes=(118.0, 88.0)),
    "emphysema": replace(BASE, aerated=-930.0, noise=30.0),
    "emphysema, sharp kernel": replace(BASE, aerated=-942.0, noise=60.0, kernel=0.4),
    "ground glass in both lungs": replace(BASE, spacing=(4.0, 2.0, 2.0), aerated=-520.0),
    "bullae of 150 mL": ill(Bullae(-1, 150.0), aerated=-900.0),
    "bullae of 1,000 mL": ill(Bullae(-1, 1000.0), aerated=-900.0),
    "infant": replace(BASE, spacing=(1.1, 1.0, 1.0), scale=0.36, noise=15.0, aerated=-700.0),
    "newborn": replace(BASE, spacing=(1.1, 0.8, 0.8), scale=0.3, noise=15.0, aerated=-580.0),
    "right lung removed": replace(BASE, removed=-1),
    "left lung removed": replace(BASE, removed=1),
    "consolidation of 10 mL at the back": ill(Consolidation(1, 10.0, angle=35, height=110)),
    "consolidation of 30 mL at the back": ill(Consolidation(-1, 30.0, angle=35, height=100)),
    "consolidation of 30 mL at the side": ill(Consolidation(1, 30.0, angle=95, height=120)),
    "consolidation of 60 mL at the side, sharp kernel": ill(Consolidation(-1, 60.0, angle=80, height=100), **SHARP),
    "consolidation of 100 mL at the back": ill(Consolidation(-1, 100.0, angle=45, height=80)),
    "consolidation of 100 mL at the side": ill(Consolidation(1, 100.0, angle=90, height=130)),
    "flat consolidation of 60 mL at the back": ill(Consolidation(-1, 60.0, angle=40, height=90, flat=0.35)),
    "consolidation of 300 mL at the back": ill(Consolidation(-1, 300.0, angle=45, height=90)),
    "consolidation of 30 mL above the diaphragm": ill(Consolidation(-1, 30.0, angle=60, height=42)),
    "consolidation of 45 mL in front": ill(Consolidation(1, 45.0, angle=136, height=175)),
    "mass of 30 mL at the wall": ill(WallMass(-1, 30.0, angle=110, height=140)),
    "mass of 20 mL near the apex": ill(WallMass(1, 20.0, angle=80, height=205)),
    "mass of 60 mL inside the lung": ill(Mass(1, 60.0, centre=(80, -20, 150))),
    "mass of 60 mL at the mediastinum": ill(Mass(-1, 60.0, centre=(50, 5, 160))),
    "atelectasis of a lower lobe, 150 mL": ill(Atelectasis(1, 150.0)),
    "effusion of 100 mL": ill(Effusion(1, 100.0)),
    "effusion of 300 mL": ill(Effusion(-1, 300.0)),
    "effusion of 400 mL with compressed lung": ill(Effusion(-1, 400.0), Compressed(-1, 80.0)),
    "effusion of 800 mL": ill(Effusion(1, 800.0)),
    "pneumothorax of 200 mL": ill(Pneumothorax(1, 200.0)),
    "pneumothorax of 1,000 mL": ill(Pneumothorax(1, 1000.0)),
}

LEAST_DENSE = {
    **{name: 90 for name in CASES if name.startswith("consolidation") and "300" not in name},
    **{name: 60 for name in CASES if name.startswith("mass")},
    "flat consolidation of 60 mL at the back": 80,
    "consolidation of 30 mL above the diaphragm": 0,
    "consolidation of 45 mL in front": 0,
}
"""Smallest percentage of the dense lung of a patient that the mask must hold, as far as there is a goal."""
