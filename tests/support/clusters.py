"""A dask cluster as its users start one: a scheduler and workers, each a process of its own on the loopback address."""

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
"""Environment in which idle schedulers, nannies and workers take little of the cores that they share with tests."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Certificates:
    """Files of an authority and of one certificate that all roles of a cluster share."""

    authority: Path
    certificate: Path
    key: Path

    def words(self) -> list[str]:
        """Options of ``dask scheduler`` and ``dask worker``."""
        return [
            "--protocol", "tls", "--tls-ca-file", str(self.authority), "--tls-cert", str(self.certificate),
            "--tls-key", str(self.key),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Dask's configuration of a client."""
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
    """Address and scheduler file of a cluster; its processes end with the block.

    Parameters
    ----------
    folder : Path
        For its files.
    workers : int
        Processes.
    memory_limit : str
        Of each.
    certificates : Certificates, optional
        Speak TLS.
    environments : sequence of mapping
        Variables of each worker, in place of some of this process.
    python : sequence of str
        Command of the interpreter of workers that have an environment of their own.
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
    """A worker with its nanny that joins the cluster of a folder; a new Python if its environment is its own."""
    command = [
        "worker", "--scheduler-file", str(folder / "scheduler.json"), "--host", "127.0.0.1", "--nthreads", "1",
        "--no-dashboard", "--local-directory", str(folder), *words,
    ]  # fmt: skip
    variables = {**os.environ, **CALM, **environment}
    # As on other machines, workers do not stand where the client stands.
    if not environment:
        return forks.start("dask", command, log, variables, folder)
    with log.open("a") as stream:
        return subprocess.Popen(
            [*python, "-m", "dask", *command], stdout=stream, stderr=stream, env=variables, cwd=folder
        )


def wait_until(condition, story, process=None, seconds: float = 60, every: float = 0.1) -> None:
    """Poll a condition; `story` tells what happened if it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, story()
        assert time.monotonic() < end, story()
        time.sleep(every)


def certificates_in(folder: Path, common_name: str = "lungmix tests") -> Certificates:
    """An authority of its own and a certificate for the loopback address."""
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
    """Environment in which a package cannot be imported, for an interpreter that looks at no site-packages (-S)."""
    folder.mkdir()
    for place in site.getsitepackages():
        for entry in Path(place).iterdir():
            kept = not entry.name.lower().lstrip("_").startswith(name) and entry.suffix != ".pth"
            if kept and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return {"PYTHONPATH": str(folder)}


def package_of_version(folder: Path, version: str) -> dict[str, str]:
    """Environment whose lungmix is of another version."""
    package = folder / "lungmix"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_version.py").write_text(f"__version__ = {version!r}\n")
    return {"PYTHONPATH": str(folder)}
