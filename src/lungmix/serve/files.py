"""Files of a store as read-only resources: ranges, shared origins, no way out.

Range requests follow RFC 9110, section 14; zarr readers fetch the index at the end of a shard as ``bytes=-N`` and then
the chunks that they want. Origins follow the Fetch standard: a web page of another site may read the answer only if
its origin is named here.
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
"""``index(address, case)`` gives the HTML of a page of all cases, or of one; KeyError if there is no such case."""

PUBLIC_VIEWERS = ("https://neuroglancer-demo.appspot.com", "https://hms-dbmi.github.io", "https://ome.github.io")
"""Origins of the viewers that `links_of` names: their pages may read the store, those of other sites may not."""

ANY = "*"

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""What a page of links may load: its own style."""

NAME = "store.zarr"
"""The store is at this path too: readers such as napari's know a Zarr address by its extension alone."""

_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[?::1\]?")
_TYPES = {".json": "application/json", ".csv": "text/csv; charset=utf-8"}
_EXPOSED = "Accept-Ranges, Content-Length, Content-Range, ETag"
_A_DAY = "86400"


def app_for(
    folder: str | Path,
    origins: Collection[str] = PUBLIC_VIEWERS,
    host: str | None = None,
    index: Index | None = None,
) -> Application:
    """The web application that serves a folder.

    Parameters
    ----------
    folder : str or Path
        The store.
    origins : collection of str
        Sites whose pages may read it, such as ``https://example.org``; ``*`` for all. Pages of this machine always may.
    host : str, optional
        The address that is listened at, if it is not a loopback one; requests for other names are refused then too,
        so that no site can give its own name to this address. ``0.0.0.0`` and ``::`` take requests for every name.
    index : callable, optional
        Page for people at ``/`` and at the address of each case; without it nothing is found there.
    """
    options = {"path": str(folder), "origins": frozenset(origins), "host": host, "index": index}
    # Readers ask for chunks that are not there, which means that they are empty: no log of that.
    paths = [(rf"/{re.escape(NAME)}/(.*)", StoreFiles, options), (r"/(.*)", StoreFiles, options)]
    return Application(paths, log_function=lambda _: None)


class StoreFiles(StaticFileHandler):
    """GET, HEAD and OPTIONS for the files of one folder; folders are not listed, but for a page of links to cases."""

    SUPPORTED_METHODS = ("GET", "HEAD", "OPTIONS")

    def initialize(self, path: str, origins: frozenset[str], host: str | None, index: Index | None) -> None:
        """See tornado."""
        super().initialize(path)
        self._origins, self._host, self._index = origins, host, index
        self._is_page = False

    def set_default_headers(self) -> None:
        """Headers of every answer, refusals too."""
        self.set_header("Server", "lungmix")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.set_header("Vary", "Origin")
        # The store may change at any time; a validator spares the second transfer.
        self.set_header("Cache-Control", "no-cache")

    def prepare(self) -> None:
        """Refuse names that are not ours, and let pages of known origins read."""
        if not self._is_our_name(self.request.host_name):
            raise HTTPError(403, "this name is not served here")
        origin = self.request.headers.get("Origin")
        if origin and self._may_read(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", _EXPOSED)

    def options(self, path: str) -> None:
        """What a browser asks before a request with ranges."""
        if self._headers.get("Access-Control-Allow-Origin"):
            self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
            self.set_header("Access-Control-Allow-Headers", "Range, If-Range, If-None-Match, If-Modified-Since")
            self.set_header("Access-Control-Allow-Private-Network", "true")
            self.set_header("Access-Control-Max-Age", _A_DAY)
        self.set_header("Allow", "GET, HEAD, OPTIONS")
        self.set_status(204)

    async def get(self, path: str, include_body: bool = True) -> None:
        """A file or a range of it, or the page of links."""
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
        wanted = self.request.headers.get("Range", "")
        self.absolute_path = self.validate_absolute_path(self.root, self.get_absolute_path(self.root, path))
        if wanted and (condition not in (None, self.compute_etag()) or not _is_one_range(wanted)):
            # The file has changed since the parts that the client has, or several ranges are asked for: all of it.
            del self.request.headers["Range"]
        elif wanted and re.fullmatch(r"bytes\s*=\s*-0+", wanted.strip()):
            self.set_status(416)
            self.set_header("Content-Range", f"bytes */{self.get_content_size()}")
            return
        await super().get(path, include_body)

    def _page(self, path: str) -> bytes | None:
        """The page of links, if the path is that of the store or of a case."""
        if self._index is None or not re.fullmatch(r"(?:[^/]+/?)?", path):
            return None
        try:
            text = self._index(f"{self.request.protocol}://{self.request.host}", path.rstrip("/") or None)
        except KeyError:
            return None
        return text.encode()

    @classmethod
    def get_absolute_path(cls, root: str, path: str) -> str:
        """The file of a path, without a look at the disk."""
        parts = path.split("/")
        if "\0" in path or "\\" in path or any(not part or part.startswith(".") for part in parts):
            raise HTTPError(404)
        return os.path.join(root, *parts)  # noqa: PTH118

    def validate_absolute_path(self, root: str, absolute_path: str) -> str:
        """The file, if it is one and lies in the store when all links are followed."""
        try:
            inside = Path(absolute_path).resolve(strict=True)
            home = Path(root).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise HTTPError(404) from None
        if not inside.is_file() or home not in inside.parents:
            raise HTTPError(404)
        return str(inside)

    def compute_etag(self) -> str | None:
        """From size and time of change: files are not read twice for a digest."""
        if self._is_page:
            return None
        state = Path(str(self.absolute_path)).stat()
        return f'"{state.st_mtime_ns:x}-{state.st_size:x}"'

    def get_content_type(self) -> str:
        """JSON, CSV or bytes."""
        return _TYPES.get(Path(str(self.absolute_path)).suffix, "application/octet-stream")

    def write_error(self, status_code: int, **_: Any) -> None:
        """A line of text in place of a page."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")

    def _is_our_name(self, name: str) -> bool:
        return bool(_LOOPBACK.fullmatch(name)) or self._host in ("0.0.0.0", "::", name)

    def _may_read(self, origin: str) -> bool:
        try:
            name = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        return ANY in self._origins or origin in self._origins or bool(_LOOPBACK.fullmatch(name))


def _is_one_range(header: str) -> bool:
    found = re.fullmatch(r"bytes\s*=\s*(?:(\d+)\s*-\s*(\d*)|-\s*\d+)", header.strip())
    return found is not None and not (found[1] and found[2] and int(found[1]) > int(found[2]))
