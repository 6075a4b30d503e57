"""Orthanc with its DICOMweb plugin, a real archive, on the loopback address and with a password."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.clusters import free_port

USER, PASSWORD = "reader", "pass word"
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_PROGRAM = shutil.which("Orthanc", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin")
_WAIT_S = 60


@dataclass
class Archive:
    """Running archive.

    Attributes
    ----------
    folder : Path
        Folder of the server: settings, index and log.
    port : int
        Port of the server on the loopback address.
    """

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Address of the archive as a source."""
        return f"dicomweb+http://127.0.0.1:{self.port}/dicom-web"

    @property
    def log(self) -> str:
        return (self.folder / "orthanc.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with (self.folder / "orthanc.log").open("a") as log:
            self._process = subprocess.Popen(
                [str(_PROGRAM), "--verbose", str(self.folder / "orthanc.json")], stdout=log, stderr=log, cwd=self.folder
            )
        end = time.monotonic() + _WAIT_S
        while True:
            assert self._process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            with suppress(OSError):
                self.call("/system")
                return
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server, so that it can start again, and wait until it has ended."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """End the server at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def call(self, path: str, content: bytes | None = None, method: str | None = None) -> Any:
        """Return the answer of Orthanc's own interface, beside DICOMweb."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", content, method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def upload(self, files) -> list[str]:
        """Store DICOM files, and return Orthanc's names of the instances."""
        return [self.call("/instances", Path(file).read_bytes())["ID"] for file in files]

    def remove(self, name: str, level: str = "instances") -> None:
        """Remove an instance, a series or a study by Orthanc's name of it."""
        self.call(f"/{level}/{name}", method="DELETE")

    def requests(self) -> list[str]:
        """Return the paths that were requested so far, in order."""
        return [
            line.split(" ", 1)[1].split(" ")[-1]
            for line in self.log.splitlines()
            if "HttpServer" in line and (" GET " in line or " POST " in line)
        ]


@contextmanager
def running_archive(folder: Path, **options: Any):
    """Run an archive for a block."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "Name": "tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(_PLUGIN)],
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomServerEnabled": False,
        "OverwriteInstances": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **options,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    archive = Archive(folder, port)
    archive.start()
    try:
        yield archive
    finally:
        archive.kill()
