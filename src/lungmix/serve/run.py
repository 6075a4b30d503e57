"""Serve a store until it is told to stop."""

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
    """A store that is being served.

    Attributes
    ----------
    address : str
        Such as ``http://127.0.0.1:8642``.
    links : list of CaseLinks
        By case.
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
    """Serve a store, read only, until the process is interrupted or asked to end.

    Parameters
    ----------
    cohort : Cohort
        In a folder.
    ready : callable
        Called once, when requests are taken.
    host : str
        Address to listen at; other machines reach only one that is not a loopback address.
    port : int
        0 for any that is free.
    origins : collection of str
        See `app_for`.

    Raises
    ------
    UsageError
        If the store is not a folder, or the address cannot be listened at.
    """
    if "://" in cohort.url:
        raise UsageError(f"{cohort.url} is not a folder: viewers open such an address themselves")
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
    taken = sockets[0].getsockname()[1]
    stop = asyncio.Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows ends the process instead
            asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{taken}"
    try:
        ready(Served(address, links_of(cohort, address)))
        await stop.wait()
    finally:
        server.stop()
        await server.close_all_connections()
