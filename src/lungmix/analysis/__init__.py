"""Studies of a fitted cohort: comparison of fits, number of components, bootstrap intervals, robustness, scores.

All studies use histograms or measurements, and none reads voxels.
"""
