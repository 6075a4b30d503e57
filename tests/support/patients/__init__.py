"""Patients: chests with organs, disease and traps in millimetres, with the part of every voxel.

>>> patient = Patient(spacing=(5, 3, 3), diseases=(Consolidation(-1, ml=60),))
>>> chest = scan(patient)
>>> round(chest.ml(Part.DENSE_RIGHT))
60
"""

from support.patients.canvas import AERATED, DENSE, Part
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
from support.patients.scan import Patient, Scan, scan

__all__ = [
    "AERATED",
    "DENSE",
    "Atelectasis",
    "Bullae",
    "Compressed",
    "Consolidation",
    "Effusion",
    "Mass",
    "Part",
    "Patient",
    "Pneumothorax",
    "Scan",
    "WallMass",
    "scan",
]
