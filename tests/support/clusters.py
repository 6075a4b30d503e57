"""A dask cluster as users start one: a scheduler and workers in separate processes, on the loopback address."""

from __future__ import annotations

import datetime
import ipaddress
import os
import site
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support import forks

CALM = {"DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms", "DASK_DISTRIBUTED__WORKER__PROFILE__INTERVAL": "100ms"}
"""Environment variables that make idle schedulers, nannies and workers use little processor time."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate authority, and of one certificate that client, scheduler and workers share."""

    authority: Path
    certificate: Path
    key: Path

    def words(self) -> list[str]:
        """Return the options for certificates of ``dask scheduler`` and ``dask worker``."""
        return [
            "--protocol", "tls", "--tls-ca-file", str(self.authority), "--tls-cert", str(self.certificate),
            "--tls-key", str(self.key),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return environment variables with the certificates for a client."""
        base = "DASK_DISTRIBUTED__COMM__TLS__"
        return {
            f"{base}CA_FILE": str(self.authority),
            f"{base}CLIENT__CERT": str(self.certificate),
            f"{base}CLIENT__KEY": str(self.key),
        }


@contextmanager
def running_cluster(
    folder: Path,
    workers: int = 2,
    memory_limit: str = "1.5GB",
    certificates: Certificates | None = None,
    environments: Sequence[Mapping[str, str]] = (),
    python: Sequence[str] = (sys.executable,),
):
    """Run a cluster for the length of a block, and yield its address and its scheduler file.

    Parameters
    ----------
    folder : Path
        Folder for the files of the cluster.
    workers : int
        Number of worker processes.
    memory_limit : str
        Memory limit of each worker.
    certificates : Certificates, optional
        Certificates for TLS; by default connections are not encrypted.
    environments : sequence of mapping
        For each worker, environment variables that replace those of this process.
    python : sequence of str
        Command of the interpreter for workers with their own environment variables.
    """
    file, port = folder / "scheduler.json", free_port()
    secure = certificates.words() if certificates else []
    scheduler = [
        "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--scheduler-file", str(file),
        *secure,
    ]  # fmt: skip
    log = folder / "cluster.log"
    processes = [forks.start("dask", scheduler, log, {**os.environ, **CALM})]
    try:
        wait_until(file.is_file, log.read_text, processes[0])
        for index in range(workers):
            settings_of_worker = environments[index] if index < len(environments) else {}
            command = list(python) if settings_of_worker else [sys.executable]
            processes.append(
                start_worker(folder, command, settings_of_worker, log, "--memory-limit", memory_limit, *secure)
            )
        yield f"{'tls' if certificates else 'tcp'}://127.0.0.1:{port}", file
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_worker(folder: Path, python: Sequence[str], environment: Mapping[str, str], log: Path, *words: str):
    """Start a worker with its nanny that joins the cluster of a folder; as a new Python if it has own variables."""
    command = [
        "worker", "--scheduler-file", str(folder / "scheduler.json"), "--host", "127.0.0.1", "--nthreads", "1",
        "--no-dashboard", "--local-directory", str(folder), *words,
    ]  # fmt: skip
    variables = {**os.environ, **CALM, **environment}
    # Workers have another working directory than the client, as on other machines.
    if not environment:
        return forks.start("dask", command, log, variables, folder)
    with log.open("a") as stream:
        return subprocess.Popen(
            [*python, "-m", "dask", *command], stdout=stream, stderr=stream, env=variables, cwd=folder
        )


def wait_until(condition, story, process=None, seconds: float = 60, every: float = 0.1) -> None:
    """Wait until a condition is true; if it does not become true, fail with the text that `story` returns."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, story()
        assert time.monotonic() < end, story()
        time.sleep(every)


def certificates_in(folder: Path, common_name: str = "lungmix tests") -> Certificates:
    """Create a certificate authority, and a certificate for the loopback address."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{common_name} authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    authority = (
        _unsigned(issuer, issuer, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _unsigned(subject, issuer, key)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    files.authority.write_bytes(authority.public_bytes(pem))
    files.certificate.write_bytes(certificate.public_bytes(pem))
    files.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files


def _unsigned(subject, issuer, key):
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
    )


def packages_without(folder: Path, name: str) -> dict[str, str]:
    """Return environment variables for a process that cannot import a package, for Python with the option -S."""
    folder.mkdir()
    for place in site.getsitepackages():
        for entry in Path(place).iterdir():
            kept = not entry.name.lower().lstrip("_").startswith(name) and entry.suffix != ".pth"
            if kept and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return {"PYTHONPATH": str(folder)}


def package_of_version(folder: Path, version: str) -> dict[str, str]:
    """Return environment variables of a lungmix of another version."""
    package = folder / "lungmix"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_version.py").write_text(f"__version__ = {version!r}\n")
    return {"PYTHONPATH": str(folder)}
