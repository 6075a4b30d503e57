"""Make cases again beside a store, and compare: every byte, from the sources or from the stored images."""

from lungmix.verify.cohort import sample_of, scans_of_cases, verify_cases, withdraw
from lungmix.verify.found import Verification
from lungmix.verify.objects import damaged_objects
from lungmix.verify.scratch import scratch_url

__all__ = [
    "Verification",
    "damaged_objects",
    "sample_of",
    "scans_of_cases",
    "scratch_url",
    "verify_cases",
    "withdraw",
]
