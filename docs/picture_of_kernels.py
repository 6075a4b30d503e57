"""Draw two reconstructions of one acquisition before and after kernel normalisation, with their histograms.

Usage::

    lungmix run scans.zarr SOFT SHARP --preset anatomical --model published --harmonise kernel
    python docs/picture_of_kernels.py scans.zarr docs/pictures/harmonise.jpg case-001 case-002 27

The scans of the picture in the docs are licensed CC BY 4.0; the page names their source.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt

import lungmix

HU_RANGE = np.arange(-1100, -499)


def main(store: str, out: str, soft: str, sharp: str, index: str) -> None:
    cohort = lungmix.open_cohort(store)
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.6), width_ratios=(1, 1, 1.1))
    for column, image in enumerate(("ct", "harmonised")):
        for row, (name, kernel) in enumerate(((soft, "soft kernel"), (sharp, "sharp kernel"))):
            case = cohort[name]
            box = box_of(case.zarr_array("side")[int(index)] == 1)
            hu = case.zarr_array(image)[int(index)]
            axes[row, column].imshow(hu[box], cmap="gray", vmin=-1100, vmax=-300)
            axes[row, column].axis("off")
            axes[row, column].set_title(f"{kernel}, {'as scanned' if image == 'ct' else 'harmonised'}", fontsize=9)
            lung = case.zarr_array("lung")[:] > 0
            counts = np.bincount(case.zarr_array(image)[:][lung].astype(np.int64) + 32768, minlength=65536)
            share = 1000 * counts[HU_RANGE + 32768] / counts.sum()
            axes[column, 2].plot(HU_RANGE, share, label=kernel, linewidth=1.2)
        axes[column, 2].set_title("as scanned" if image == "ct" else "harmonised", fontsize=9)
        axes[column, 2].set_ylim(0, 10)
        axes[column, 2].axvline(-950, color="0.6", linewidth=0.8)
        axes[column, 2].set_ylabel("‰ of lung voxels per HU", fontsize=8)
        axes[column, 2].tick_params(labelsize=8)
        axes[column, 2].legend(fontsize=8, frameon=False)
    axes[1, 2].set_xlabel("HU", fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=100)


def box_of(mask):
    """Rows and columns of a mask."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0] - 8, rows[-1] + 9), slice(columns[0] - 8, columns[-1] + 9)


if __name__ == "__main__":
    main(*sys.argv[1:])
