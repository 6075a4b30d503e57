"""Connection to a DICOMweb server, which needs an extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungmix.errors import UsageError

if TYPE_CHECKING:
    from lungmix.formats.dicomweb.server import DicomwebServer

INSTALL = "pip install 'lungmix[dicomweb]'"


def open_server(base: str) -> DicomwebServer:
    """Return a connection to a server.

    Parameters
    ----------
    base : str
        ``https://HOST/PATH``, where the server has its studies.

    Raises
    ------
    UsageError
        If `dicomweb-client` is not installed.
    """
    try:
        from lungmix.formats.dicomweb.server import DicomwebServer
    except ModuleNotFoundError:
        raise UsageError(f"sources on a DICOMweb server need another package: install it by `{INSTALL}`") from None
    return DicomwebServer(base)
