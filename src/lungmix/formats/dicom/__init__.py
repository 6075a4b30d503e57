"""Reader of DICOM: series in the files of a source, their geometry and their voxels."""

import sys
from contextlib import suppress
from importlib import import_module


def _import_gdcm() -> None:
    """Import GDCM, with which pydicom decodes pixels, before pydicom does.

    GDCM tries to import the modules ``dl`` and ``DLFCN`` of old Python versions, and accepts any module with such a
    name. A folder ``dl`` in the working directory would make the imports of GDCM and pydicom fail, so both names are
    blocked during the import.
    """
    names = ("dl", "DLFCN")
    imported = {name: sys.modules[name] for name in names if name in sys.modules}
    # A module that is None in `sys.modules` cannot be imported.
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        with suppress(ImportError):
            import_module("gdcm")
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(imported)


if "gdcm" not in sys.modules:
    _import_gdcm()
