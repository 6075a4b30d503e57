"""Serve a store over HTTP from a thread of the test."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets


@contextmanager
def serving(app):
    """Serve a web application on a free port of the loopback address, and yield its address."""
    ready, stop = threading.Event(), None
    state = {}

    async def main():
        nonlocal stop
        sockets = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(app)
        server.add_sockets(sockets)
        stop = asyncio.Event()
        state.update(address=f"http://127.0.0.1:{sockets[0].getsockname()[1]}", loop=asyncio.get_running_loop())
        ready.set()
        await stop.wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait(30)
    try:
        yield state["address"]
    finally:
        state["loop"].call_soon_threadsafe(stop.set)
        thread.join(30)
