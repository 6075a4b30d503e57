"""A gateway in front of an S3 server, which fails from a chosen request on."""

from __future__ import annotations

import http.client
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

STOPPED = 0
"""Value in place of an HTTP status: the gateway stops listening, so that connections are refused."""

_CODES = {403: "AccessDenied", 503: "ServiceUnavailable"}


class Gateway:
    """Gateway that forwards requests until a matching one comes; from then on, requests fail.

    Parameters
    ----------
    endpoint : str
        Endpoint of the server.

    Attributes
    ----------
    address : str
        Endpoint of the gateway; its port stays the same if it stops and listens again.
    tripped : threading.Event
        Set when requests begin to fail.
    passed, failed : list of str
        Methods and paths of the forwarded requests, and of the requests that got an error.
    """

    def __init__(self, endpoint: str):
        self.target = urlsplit(endpoint).netloc
        self.tripped = threading.Event()
        self.passed: list[str] = []
        self.failed: list[str] = []
        self._trip: re.Pattern[str] | None = None
        self._status = STOPPED
        self._server = self._listen(0)
        self._port = self._server.server_port
        self.address = f"http://127.0.0.1:{self._port}"

    def fail_from(self, request: str, status: int) -> None:
        """Answer with a status from the first request on whose method and path match a pattern."""
        self._trip, self._status = re.compile(request), status

    def recover(self) -> None:
        """Forward requests again."""
        self._trip = None
        if self.tripped.is_set() and self._status == STOPPED:
            self._server = self._listen(self._port)
        self.tripped.clear()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def fails(self, method: str, path: str) -> bool:
        """Return True if a request is not forwarded."""
        if self._trip is not None and self._trip.search(f"{method} {path}") and not self.tripped.is_set():
            self.tripped.set()
            if self._status == STOPPED:
                self.close()
        return self.tripped.is_set()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Forward a request, or answer it with an error."""
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        if not self.fails(handler.command, handler.path):
            self.passed.append(f"{handler.command} {handler.path}")
            onward = http.client.HTTPConnection(self.target, timeout=30)
            onward.request(handler.command, handler.path, body, dict(handler.headers))
            answer = onward.getresponse()
            _send(handler, answer.status, dict(answer.getheaders()), answer.read())
            onward.close()
        elif self._status != STOPPED:
            self.failed.append(f"{handler.command} {handler.path}")
            text = f"<?xml version='1.0'?><Error><Code>{_CODES[self._status]}</Code></Error>"
            _send(handler, self._status, {"Content-Length": str(len(text))}, text.encode())

    def _listen(self, port: int) -> ThreadingHTTPServer:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                gateway.answer(self)

            do_PUT = do_HEAD = do_POST = do_DELETE = do_GET

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


@contextmanager
def running_gateway(endpoint: str):
    """Run a gateway for the length of a block."""
    gateway = Gateway(endpoint)
    try:
        yield gateway
    finally:
        if not gateway.tripped.is_set():
            gateway.close()


def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response_only(status)
    for name, value in headers.items():
        if name.lower() not in ("connection", "transfer-encoding"):
            handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
