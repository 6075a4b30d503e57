"""SeaweedFS, an S3 server, on the loopback address; it counts its requests."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

BUCKET = "cohorts"
_WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
_COUNT = re.compile(r"^SeaweedFS_s3_request_total\{.*?type=\"(\w+)\"\} (\d+)", re.MULTILINE)
_SERVERS = ("master", "volume", "filer", "s3")
_WAIT_S = 60


@dataclass(frozen=True)
class Bucket:
    """Bucket of a running server.

    Attributes
    ----------
    endpoint : str
        Address of the server.
    metrics : str
        Address with the numbers of requests.
    """

    endpoint: str
    metrics: str

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"

    def store(self) -> S3Store:
        return S3Store(BUCKET, endpoint=self.endpoint, client_options={"allow_http": True})

    def upload(self, folder: Path, prefix: str) -> str:
        """Upload the files of a folder under a prefix, and return the address of the prefix."""
        for file in folder.rglob("*"):
            if file.is_file():
                obstore.put(self.store(), f"{prefix}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return self.url(prefix)

    def requests(self) -> Counter[str]:
        """Return the number of requests so far by method; listings count as LIST."""
        counted: Counter[str] = Counter()
        for method, count in _COUNT.findall(_read(self.metrics)):
            counted[method] += int(count)
        return counted


@contextmanager
def running_bucket(folder: Path):
    """Run a server with a bucket for a block, and set the environment variables by which processes find it."""
    ports = _free_ports(2 * len(_SERVERS) + 1)
    local_ports, remote = (
        dict(zip(_SERVERS, ports, strict=False)),
        dict(zip(_SERVERS, ports[len(_SERVERS) :], strict=False)),
    )
    data, log, keys = folder / "weed", folder / "weed.log", folder / "weed.json"
    credentials = [{"accessKey": "tester", "secretKey": "secret"}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    keys.write_text(json.dumps({"identities": [{"name": "tester", "credentials": credentials, "actions": actions}]}))
    data.mkdir()
    options = {f"{name}.port": port for name, port in local_ports.items()}
    options |= {f"{name}.port.grpc": port for name, port in remote.items()}
    options |= {"dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.config": keys, "s3.iam": "false"}
    options |= {"s3.port.iceberg": 0, "s3.port.lance": 0, "s3.autoCreateBucket": "false", "volume.max": 20}
    options |= {"master.volumeSizeLimitMB": 64, "metricsIp": "127.0.0.1", "metricsPort": ports[-1]}
    command = [
        str(_WEED),
        "-logtostderr=true",
        "server",
        "-filer",
        "-s3",
        *(f"-{name}={value}" for name, value in options.items()),
    ]
    bucket = Bucket(f"http://127.0.0.1:{local_ports['s3']}", f"http://127.0.0.1:{ports[-1]}/metrics")
    before = dict(os.environ)
    with log.open("w") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=folder)
    try:
        os.environ.update(
            AWS_ENDPOINT_URL=bucket.endpoint,
            AWS_ACCESS_KEY_ID="tester",
            AWS_SECRET_ACCESS_KEY="secret",
            AWS_REGION="us-east-1",
        )
        _wait_for(bucket, f"http://127.0.0.1:{local_ports['filer']}/buckets/{BUCKET}/", server, log)
        yield bucket
    finally:
        os.environ.clear()
        os.environ.update(before)
        # Kill it, because it takes half a minute to end by itself.
        server.kill()
        server.wait(30)
        shutil.rmtree(data, ignore_errors=True)
        for port in ports:
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)


def _wait_for(bucket: Bucket, folder: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Create the bucket, which is a folder for the server, and wait until objects can be written."""
    end = time.monotonic() + _WAIT_S
    while True:
        assert server.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < end, log.read_text(errors="replace")
        with suppress(OSError, obstore.exceptions.BaseError):
            urllib.request.urlopen(urllib.request.Request(folder, method="POST"), timeout=10).close()
            obstore.put(bucket.store(), "probe", b"probe")
            obstore.delete(bucket.store(), "probe")
            return
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()
