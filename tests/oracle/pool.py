"""Pools of a cohort by exact rational numbers, one case after the other."""

from fractions import Fraction

import numpy as np


def pooled(histograms):
    """Return the sum of histograms as integers of Python."""
    return [sum(int(histogram[i]) for histogram in histograms) for i in range(len(histograms[0]))]


def pooled_alike(histograms):
    """Return the sum of histograms of which each has an equal part, rounded as documented: quotients, sum, product."""
    filled = [histogram for histogram in histograms if histogram.any()]
    voxels = sum(int(histogram.sum()) for histogram in filled)
    sums = [
        sum((Fraction(int(histogram[i]) / int(histogram.sum())) for histogram in filled), Fraction())
        for i in range(len(histograms[0]))
    ]
    return np.array([float(value) for value in sums]) * (float(voxels) / len(filled))
