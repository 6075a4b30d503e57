"""The stages of the method, one file each: what a stage reads, writes and depends on.

Every stage answers ``"kept"`` when the store already holds its valid result, and ``"done"`` when it made it.
"""

from lungmix.stages.convert import convert
from lungmix.stages.fit import fit
from lungmix.stages.label import label
from lungmix.stages.mask import mask
from lungmix.stages.measure import measure

__all__ = ["convert", "fit", "label", "mask", "measure"]
