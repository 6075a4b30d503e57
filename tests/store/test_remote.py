"""Failures of an object store, each reported in one sentence."""

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from obstore import exceptions
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import lungmix
from lungmix import s3
from lungmix.cli import main
from lungmix.errors import StoreError
from lungmix.store.zarr_store import zarr_store

STORE = "s3://bucket/study/c.zarr"
KINDS = [error for error in vars(exceptions).values() if isinstance(error, type)]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3._open_store.cache_clear()
    yield
    s3._open_store.cache_clear()


@contextmanager
def answering(status, code, monkeypatch):
    """Run a server that answers every request with the same error of S3."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>secret key/of patient</Message></Error>"
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_PUT = do_HEAD = do_POST = do_DELETE = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            yield
        finally:
            server.shutdown()


def said(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "AccessDenied", "access is denied"),
        (401, "Unauthorized", "access is denied"),
        (403, "InvalidAccessKeyId", "the key is unknown"),
        (403, "SignatureDoesNotMatch", "the secret key is wrong"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (400, "ExpiredToken", "no longer valid"),
        (404, "NoSuchBucket", "there is no such bucket"),
        (301, "PermanentRedirect", "another region"),
    ],
)
def test_answer_of_an_object_store_becomes_one_sentence(mode, status, code, reason, monkeypatch):
    with answering(status, code, monkeypatch), pytest.raises(StoreError, match=reason) as failed:
        lungmix.open_cohort(STORE, mode)
    text = str(failed.value)
    assert text.startswith(f"{STORE} cannot be reached (")
    assert "\n" not in text
    assert "patient" not in text
    assert failed.value.__suppress_context__


@pytest.mark.parametrize("command", ["info", "verify", "measure"])
def test_command_exits_with_status_2_without_an_object_store(command, monkeypatch, capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setattr(s3, "RETRIES", 1)
        status, text = said(capsys, command, STORE)
    assert status == 2
    assert text.strip().splitlines()[-1].startswith(f"lungmix: {STORE} cannot be reached (the object store does not")
    assert "Debug source" not in text


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:9", "localhost", "ftp://host", "http://", "http://host:99999999", "x y"]
)
@pytest.mark.parametrize("words", [("info", STORE), ("scan", "s3://bucket/scans")])
def test_endpoint_that_is_no_address_is_rejected_by_name(endpoint, words, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    status, text = said(capsys, *words)
    assert status == 2
    assert f"AWS_ENDPOINT_URL is {endpoint!r}" in text
    assert "https://HOST" in text


def test_error_asks_for_missing_credentials(monkeypatch):
    def get(*args, **options):
        raise exceptions.GenericError("Error performing PUT http://169.254.169.254/latest/api/token")

    monkeypatch.setattr("obstore.get_async", get)
    with pytest.raises(StoreError, match=r"no credentials.*AWS_ACCESS_KEY_ID.*profile"):
        lungmix.open_cohort(STORE)


@pytest.mark.parametrize("call", ["get", "set", "exists", "delete", "delete_dir", "list", "sizes", "getsize"])
def test_every_error_of_the_library_becomes_a_store_error(call, monkeypatch):
    raised = []

    def fail(*args, **options):
        raise raised[-1]("words of the library")

    for name in ("get_async", "put_async", "head_async", "delete_async", "list", "list_with_delimiter_async"):
        monkeypatch.setattr(f"obstore.{name}", fail)
    store, prototype = zarr_store(STORE), default_buffer_prototype()
    value = prototype.buffer.from_bytes(b"x")

    async def listed():
        return [key async for key in store.list_dir("k")]

    calls = {
        "get": lambda: sync(store.get("k", prototype)), "set": lambda: sync(store.set("k", value)),
        "exists": lambda: sync(store.exists("k")), "delete": lambda: sync(store.delete("k")),
        "delete_dir": lambda: sync(store.delete_dir("k")), "list": lambda: sync(listed()),
        "sizes": lambda: store.sizes_under("k"), "getsize": lambda: sync(store.getsize("k")),
    }  # fmt: skip
    for kind in KINDS:
        raised.append(kind)
        with pytest.raises(StoreError) as failed:
            calls[call]()
        assert "words of the library" not in str(failed.value)
