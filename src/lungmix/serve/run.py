"""HTTP server of a store, which runs until it is interrupted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from lungmix.errors import UsageError
from lungmix.serve.files import PUBLIC_VIEWERS, app_for
from lungmix.serve.index import index_page
from lungmix.serve.links import CaseLinks, links_of
from lungmix.store import Cohort

LOOPBACK = "127.0.0.1"
PORT = 8642
_LAST_PORT = 65535


@dataclass(frozen=True)
class Served:
    """Address and links of a store that is being served.

    Attributes
    ----------
    address : str
        Address of the server, such as ``http://127.0.0.1:8642``.
    links : list of CaseLinks
        Links of each case.
    """

    address: str
    links: list[CaseLinks]


def serve(
    cohort: Cohort,
    ready: Callable[[Served], None],
    *,
    host: str = LOOPBACK,
    port: int = PORT,
    origins: Collection[str] = PUBLIC_VIEWERS,
) -> None:
    """Serve a store read-only until SIGINT or SIGTERM.

    Parameters
    ----------
    cohort : Cohort
        Store in a folder.
    ready : callable
        Called once the server accepts requests.
    host : str
        Address to listen at; other machines cannot reach a loopback address.
    port : int
        Port; 0 for any free port.
    origins : collection of str
        See `app_for`.

    Raises
    ------
    UsageError
        If the store is not a folder, or the server cannot listen at the address.
    """
    if "://" in cohort.url:
        raise UsageError(
            f"{cohort.url} is not a folder: give its address to a viewer, which needs no server to open it"
        )
    if not 0 <= port <= _LAST_PORT:
        raise UsageError(f"there is no port {port}: give a `port` from 0 to {_LAST_PORT}")
    asyncio.run(_serve(cohort, ready, host, port, origins))


async def _serve(
    cohort: Cohort, ready: Callable[[Served], None], host: str, port: int, origins: Collection[str]
) -> None:
    app = app_for(Path(cohort.url).resolve(), origins, host, lambda address, case: index_page(cohort, address, case))
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{host}:{port} cannot be listened at ({reason}): give another `port` or `host`") from None
    server = HTTPServer(app)
    server.add_sockets(sockets)
    actual_port = sockets[0].getsockname()[1]
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has no handlers: the signal ends the process.
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{actual_port}"
    try:
        ready(Served(address, links_of(cohort, address)))
        await stop.wait()
    finally:
        server.stop()
        await server.close_all_connections()
