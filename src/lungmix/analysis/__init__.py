"""Studies of a fitted cohort: both fits side by side, the number of components, intervals, robustness.

All of them work on counts per HU; none reads a voxel.
"""
