"""DICOM: which files make a series, where it lies, and its voxels."""

import warnings

# They quote what stands in headers of strangers, such as names; what is wrong with a file is told in words of our own.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
