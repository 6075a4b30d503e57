"""An SSH server on the loopback address that runs commands as sshd does, for the real client."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncssh


class Server:
    """Running server, with the commands that it has run.

    Attributes
    ----------
    sessions : dict
        Commands by the process that leads their session.
    options : str
        Options with which ``ssh`` connects to this server and trusts it alone.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self.sessions: dict[int, str] = {}
        self.options = ""

    async def serve(self, process: asyncssh.SSHServerProcess) -> None:
        """Run the command of a connection; if the client requests a terminal, it is closed when the connection ends."""
        terminal = process.term_type is not None
        near, far = os.openpty() if terminal else os.pipe()
        with os.fdopen(near, "rb", buffering=0) as output:
            child = await asyncio.create_subprocess_exec(
                *("setsid", *(["--ctty"] if terminal else []), "/bin/sh", "-c", process.command or ""),
                stdin=far if terminal else asyncio.subprocess.DEVNULL, stdout=far, stderr=far,
                env={**self._environment, "TERM": process.term_type or "dumb"}, cwd=self._environment["HOME"],
            )  # fmt: skip
            os.close(far)
            self.sessions[child.pid] = process.command or ""
            relay = asyncio.create_task(_relay(output, process))
            await asyncio.wait({relay, asyncio.create_task(process.wait_closed())}, return_when="FIRST_COMPLETED")
            relay.cancel()
        status = await child.wait()
        process.exit(status if status >= 0 else 128 - status)


async def _relay(output, process: asyncssh.SSHServerProcess) -> None:
    """Send the output of a command to the client, until the command or the client closes the connection."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), output)
    try:
        # Reading from a terminal whose command has ended raises an error, instead of returning end of file.
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                process.stdout.write(data)
                await process.stdout.drain()
    finally:
        transport.close()


@contextmanager
def running_ssh_server(folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Create keys and run a server that accepts them; the server and its commands end with the block.

    Parameters
    ----------
    folder : Path
        Folder for the key of the client, and its file of known hosts.
    environment : mapping
        Environment variables of commands; they have no others.
    """
    host, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    identity, known_hosts = folder / "id_ed25519", folder / "known_hosts"
    identity.touch(mode=0o600)
    identity.write_bytes(client.export_private_key())
    server = Server(environment)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen():
        keys = asyncssh.import_authorized_keys(client.export_public_key().decode())
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys=keys, process_factory=server.serve,
            encoding=None, line_editor=False,
        )  # fmt: skip

    async def close(callback):
        callback.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        callback = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
        try:
            port = callback.get_port()
            known_hosts.write_text(f"[127.0.0.1]:{port},[localhost]:{port} {host.export_public_key().decode()}")
            server.options = (
                f"-F none -p {port} -i {identity} -o IdentitiesOnly=yes -o UserKnownHostsFile={known_hosts} "
                "-o GlobalKnownHostsFile=none -o StrictHostKeyChecking=yes"
            )
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(close(callback), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
