"""Studies of a fitted cohort: fits side by side, number of components, intervals, robustness, scores.

All work on histograms; none reads a voxel.
"""
