"""A server that speaks S3, on the loopback address, which counts the requests it gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import free_port

BUCKET = "cohorts"
_LINE = re.compile(r'"(GET|PUT|HEAD|DELETE|POST) (\S+)')


@dataclass(frozen=True)
class Bucket:
    """A bucket of a running server.

    Attributes
    ----------
    endpoint : str
        Address of the server.
    log : Path
        A line a request.
    """

    endpoint: str
    log: Path

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"

    def requests(self) -> Counter[str]:
        """Requests so far, by method; listings count as LIST."""
        found: Counter[str] = Counter()
        for method, path in _LINE.findall(self.log.read_text()):
            found["LIST" if "list-type" in path else method] += 1
        return found


@contextmanager
def running_bucket(folder: Path):
    """A bucket; the environment of this process and of those it starts leads to it within the block."""
    port, log = free_port(), folder / "s3.log"
    endpoint = f"http://127.0.0.1:{port}"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=stream, stderr=stream)
        before = dict(os.environ)
        try:
            for _ in range(600):
                assert server.poll() is None, log.read_text()
                try:
                    request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
                    urllib.request.urlopen(request, timeout=10).close()
                    break
                except OSError:
                    time.sleep(0.1)
            os.environ.update(
                AWS_ENDPOINT_URL=endpoint,
                AWS_ACCESS_KEY_ID="tester",
                AWS_SECRET_ACCESS_KEY="secret",
                AWS_REGION="us-east-1",
            )
            yield Bucket(endpoint, log)
        finally:
            os.environ.clear()
            os.environ.update(before)
            server.terminate()
            server.wait(30)
