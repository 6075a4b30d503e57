"""DICOM: which files make a series, where it lies, and its voxels."""
