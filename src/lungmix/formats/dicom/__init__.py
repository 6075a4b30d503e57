"""DICOM: which files make a series, where it lies, and its voxels."""

import sys
import warnings
from contextlib import suppress
from importlib import import_module

# They quote what stands in headers of strangers, such as names; what is wrong with a file is told in words of our own.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


def _import_gdcm() -> None:
    """Import what pydicom decodes with before pydicom does.

    GDCM looks for modules of old Pythons that hold the flags of the dynamic loader, and takes whatever is called so: a
    folder ``dl`` where Python or a notebook was started, for one, at which its import and pydicom's would fail.
    """
    names = ("dl", "DLFCN")
    known = {name: sys.modules[name] for name in names if name in sys.modules}
    # What is None there cannot be imported.
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        with suppress(ImportError):
            import_module("gdcm")
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(known)


if "gdcm" not in sys.modules:
    _import_gdcm()
