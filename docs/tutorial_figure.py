"""Draw the slice of a case with most lung beside its labels, and the tissues of the cohort: [STORE OUT]."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap

import lungmix

store, out = sys.argv[1:] or ("cohort.zarr", "figure.png")
cohort = lungmix.open_cohort(store)
table = pd.read_csv(f"{store}/measurements.csv", index_col="case")

name = table["lung_involvement"].idxmax()
case = cohort[name]
z = int(case.lung.sum(axis=(1, 2)).argmax())  # dask: read slab by slab
ct, labels = case.ct[z].compute(), case.tissue_median[z].compute()
spacing = case.geometry.spacing  # x, y, z in mm

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for axes in (left, middle):
    axes.imshow(ct, cmap="gray", vmin=-1350, vmax=150, aspect=spacing[1] / spacing[0])
    axes.set_axis_off()
colors = ListedColormap([tissue.color for tissue in lungmix.TISSUES])
middle.imshow(np.ma.masked_equal(labels, 0), cmap=colors, vmin=0.5, vmax=5.5, aspect=spacing[1] / spacing[0])
left.set_title(f"{name}, slice {z + 1}")
middle.set_title(f"LI {table.loc[name, 'lung_involvement']:.1f} %")

base = np.zeros(len(table))
for tissue in lungmix.TISSUES:
    right.barh(table.index, table[tissue.key], left=base, color=tissue.color, label=tissue.name)
    base += table[tissue.key].to_numpy()
right.set_xlabel("percent of lung voxels")
right.invert_yaxis()
fig.legend(loc="outside lower center", ncols=5, frameon=False)
fig.savefig(out, dpi=100)
