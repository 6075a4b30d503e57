"""Simulated chest CT (phantoms) in HU with known tissue of each voxel, and cohorts of phantoms.

>>> from lungmix.phantom import Phantom
>>> phantom = Phantom(shape=(48, 64, 64), spacing=(5.6, 5.6, 6.25), seed=1)
>>> phantom.volume().shape
(48, 64, 64)
"""

from lungmix.phantom.cohort import Cohort, write_cohort
from lungmix.phantom.scene import TRAPS, Phantom
from lungmix.phantom.write import write_phantom

__all__ = ["TRAPS", "Cohort", "Phantom", "write_cohort", "write_phantom"]
