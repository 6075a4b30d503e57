"""A proxy between two programs, which can cut connections, or report the number of bytes that passed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Proxy:
    """Proxy that forwards bytes between its own port and another one, until it is cut.

    Parameters
    ----------
    port : int
        Port to forward connections to.
    hear : callable, optional
        Called with the number of bytes that came back over a connection so far, before the last are forwarded.
    """

    def __init__(self, port: int, hear: Callable[[int], None] = lambda _: None):
        self._target, self._hear = port, hear
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and accept no new ones."""
        self._server.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                self._open += [near, far]
            for words in ((near, far, lambda _: None), (far, near, self._hear)):
                threading.Thread(target=_pass_on, args=words, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, hear: Callable[[int], None]) -> None:
    passed = 0
    try:
        while data := source.recv(1 << 16):
            passed += len(data)
            hear(passed)
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
