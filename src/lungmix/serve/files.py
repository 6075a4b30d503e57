"""Read-only HTTP access to the files of a store, with ranges and CORS, and to nothing outside it.

Range requests follow RFC 9110, section 14: zarr readers fetch the index at the end of a shard as ``bytes=-N``, then
single chunks. A web page of another site may read a response only if its origin is allowed (CORS).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado.web import Application, HTTPError, StaticFileHandler

Index = Callable[[str, str | None], str]
"""Function ``index(address, case)`` that returns the HTML of the page of links: of all cases if `case` is None.

It raises `KeyError` if there is no such case.
"""

PUBLIC_VIEWERS = ("https://neuroglancer-demo.appspot.com", "https://hms-dbmi.github.io", "https://ome.github.io")
"""Origins of the viewers in `links_of`. Their pages may read the store; pages of other sites may not."""

ANY = "*"

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content Security Policy of the page of links: it loads nothing but its inline style."""

NAME = "store.zarr"
"""Folder under which the server offers the store a second time: readers such as napari's recognise a Zarr address only
by its extension."""

_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[?::1\]?")
_TYPES = {".json": "application/json", ".csv": "text/csv; charset=utf-8"}
_EXPOSED = "Accept-Ranges, Content-Length, Content-Range, ETag"


def app_for(
    folder: str | Path,
    origins: Collection[str] = PUBLIC_VIEWERS,
    host: str | None = None,
    index: Index | None = None,
) -> Application:
    """Return the web application that serves a folder.

    Parameters
    ----------
    folder : str or Path
        The store.
    origins : collection of str
        Sites whose pages may read the store, such as ``https://example.org``; ``*`` for all sites. Pages that this
        machine serves may always read it.
    host : str, optional
        Address to listen at, if it is not a loopback address. Requests for other host names are rejected, which
        prevents DNS rebinding; ``0.0.0.0`` and ``::`` accept every host name.
    index : callable, optional
        Function that returns the HTML page at ``/`` and at the address of each case. Without it, the server answers 404
        there.
    """
    options = {"path": str(folder), "origins": frozenset(origins), "host": host, "index": index}
    # Requests are not logged: readers request many empty chunks, which are not stored and so are answered by 404.
    paths = [(rf"/{re.escape(NAME)}/(.*)", StoreFiles, options), (r"/(.*)", StoreFiles, options)]
    return Application(paths, log_function=lambda _: None)


class StoreFiles(StaticFileHandler):
    """Handler of GET, HEAD and OPTIONS for the files of a folder and the page of links. It lists no folders."""

    SUPPORTED_METHODS = ("GET", "HEAD", "OPTIONS")

    def initialize(self, path: str, origins: frozenset[str], host: str | None, index: Index | None) -> None:
        """Set the options of `app_for`, which tornado passes to each handler."""
        super().initialize(path)
        self._origins, self._host, self._index = origins, host, index
        self._is_page = False

    def set_default_headers(self) -> None:
        """Set the headers of every response, errors included."""
        self.set_header("Server", "lungmix")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.set_header("Vary", "Origin")
        # The store may change at any time: browsers revalidate by ETag, and unchanged files are not sent twice.
        self.set_header("Cache-Control", "no-cache")

    def prepare(self) -> None:
        """Reject requests to other host names, and add the headers by which pages of listed origins may read."""
        if not self._is_served_host(self.request.host_name):
            raise HTTPError(403, "requests to this host name are not answered: use the address that lungmix printed")
        origin = self.request.headers.get("Origin")
        if origin and self._may_read(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", _EXPOSED)

    def options(self, path: str) -> None:
        """Answer a CORS preflight, which browsers send before a request with ranges."""
        if self._headers.get("Access-Control-Allow-Origin"):
            self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
            self.set_header("Access-Control-Allow-Headers", "Range, If-Range, If-None-Match, If-Modified-Since")
            self.set_header("Access-Control-Allow-Private-Network", "true")
            self.set_header("Access-Control-Max-Age", "86400")
        self.set_header("Allow", "GET, HEAD, OPTIONS")
        self.set_status(204)

    async def get(self, path: str, include_body: bool = True) -> None:
        """Send a file or a range of it, or the page of links."""
        page = self._page(path)
        if page is not None:
            self._is_page = True
            self.set_header("Content-Type", "text/html; charset=utf-8")
            self.set_header("Content-Security-Policy", CONTENT_POLICY)
            self.set_header("Content-Length", str(len(page)))
            if include_body:
                self.write(page)
            return
        condition = self.request.headers.get("If-Range")
        byte_range = self.request.headers.get("Range", "")
        self.absolute_path = self.validate_absolute_path(self.root, self.get_absolute_path(self.root, path))
        if byte_range and (condition not in (None, self.compute_etag()) or not _is_single_range(byte_range)):
            # Send all of a file that has changed since the client read parts of it, or if several ranges are requested.
            del self.request.headers["Range"]
        elif re.fullmatch(r"bytes\s*=\s*-0+", byte_range.strip()):
            self.set_status(416)
            self.set_header("Content-Range", f"bytes */{self.get_content_size()}")
            return
        await super().get(path, include_body)

    def _page(self, path: str) -> bytes | None:
        """Return the page of links if the path is that of the store or of a case, else None."""
        if self._index is None or not re.fullmatch(r"(?:[^/]+/?)?", path):
            return None
        try:
            text = self._index(f"{self.request.protocol}://{self.request.host}", path.rstrip("/") or None)
        except KeyError:
            return None
        return text.encode()

    @classmethod
    def get_absolute_path(cls, root: str, path: str) -> str:
        """Return the path of the file for a URL path, without accessing the disk; 404 for hidden files and ``..``."""
        parts = path.split("/")
        if "\0" in path or "\\" in path or any(not part or part.startswith(".") for part in parts):
            raise HTTPError(404)
        return os.path.join(root, *parts)  # noqa: PTH118

    def validate_absolute_path(self, root: str, absolute_path: str) -> str:
        """Return the path with links resolved; 404 unless it is a file inside the store."""
        try:
            file = Path(absolute_path).resolve(strict=True)
            folder = Path(root).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise HTTPError(404) from None
        if not file.is_file() or folder not in file.parents:
            raise HTTPError(404)
        return str(file)

    def compute_etag(self) -> str | None:
        """Return an ETag made from size and modification time, so that the file need not be read for a digest."""
        if self._is_page:
            return None
        status = Path(str(self.absolute_path)).stat()
        return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'

    def get_content_type(self) -> str:
        """Return the MIME type: that of JSON or CSV by the extension, else that of bytes."""
        return _TYPES.get(Path(str(self.absolute_path)).suffix, "application/octet-stream")

    def write_error(self, status_code: int, **_: Any) -> None:
        """Send the error as a line of text."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")

    def _is_served_host(self, name: str) -> bool:
        return bool(_LOOPBACK.fullmatch(name)) or self._host in ("0.0.0.0", "::", name)

    def _may_read(self, origin: str) -> bool:
        try:
            name = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        return ANY in self._origins or origin in self._origins or bool(_LOOPBACK.fullmatch(name))


def _is_single_range(header: str) -> bool:
    match = re.fullmatch(r"bytes\s*=\s*(?:(\d+)\s*-\s*(\d*)|-\s*\d+)", header.strip())
    return match is not None and not (match[1] and match[2] and int(match[1]) > int(match[2]))
