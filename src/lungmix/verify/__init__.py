"""Verification: recompute cases in a temporary store, from sources or from stored images, and compare every byte."""

from lungmix.verify.cohort import invalidate, sample_of, scans_of_cases, verify_cases
from lungmix.verify.objects import corrupt_objects
from lungmix.verify.problems import Verification
from lungmix.verify.scratch import scratch_url

__all__ = [
    "Verification",
    "corrupt_objects",
    "invalidate",
    "sample_of",
    "scans_of_cases",
    "scratch_url",
    "verify_cases",
]
