"""The served store as clients see it: byte ranges, origins and host names are respected, other files not served."""

import fnmatch
import html
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

import lungmix
from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.serve import app_for, links_of, serve
from lungmix.serve.index import index_page
from support.generators import labelled_case
from support.serving import serving

CHUNK = "/case-001/0/c/0/0/0"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    cohort = lungmix.open_cohort(folder / "cohort.zarr", "a")
    labelled_case(cohort, "case-001", Geometry((40, 30, 20), (0.7, 0.7, 1.2)))
    (folder / "cohort.zarr" / "measurements.csv").write_text("case,lung_ml\n")
    return folder / "cohort.zarr"


@pytest.fixture(scope="module")
def trapped(store):
    """Address of a copy of the store that contains hidden files, and links to files outside it."""
    folder = store.parent / "trapped"
    shutil.copytree(store, folder / "cohort.zarr")
    (folder / "secret.txt").write_text("secret")
    (folder / "cohort.zarr-beside").mkdir()
    (folder / "cohort.zarr-beside" / "secret.txt").write_text("secret")
    (folder / "cohort.zarr" / "way-out").symlink_to(folder)
    (folder / "cohort.zarr" / "file-out").symlink_to(folder / "secret.txt")
    (folder / "cohort.zarr" / "loop").symlink_to(folder / "cohort.zarr" / "loop")
    (folder / "cohort.zarr" / ".hidden.partial").write_text("half")
    with serving(app_for(folder / "cohort.zarr")) as address:
        yield address


@pytest.fixture(scope="module")
def address(store):
    with serving(app_for(store)) as address:
        yield address


def ask(address, path, method="GET", **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer, answer.read()


def test_zarr_reads_shards_over_http(address, store):
    import zarr
    from obstore.store import HTTPStore
    from zarr.storage import ObjectStore

    case = lungmix.open_cohort(store)["case-001"]
    group = zarr.open_group(
        ObjectStore(HTTPStore(f"{address}/case-001", client_options={"allow_http": True}), read_only=True), mode="r"
    )
    assert np.array_equal(group["0"][:], case.zarr_array("ct")[:])
    assert np.array_equal(group["labels/tissue/0"][3:7, 5:20], case.zarr_array("tissue")[3:7, 5:20])


@pytest.mark.parametrize(
    ("byte_range", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=5-5", slice(5, 6)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-16", slice(-16, None)),
        ("bytes=10-99999999", slice(10, None)),
    ],
)
def test_range_has_the_requested_bytes(address, store, byte_range, part):
    content = (store / CHUNK[1:]).read_bytes()
    expected = content[part]
    answer, body = ask(address, CHUNK, Range=byte_range)
    assert (answer.status, body) == (206, expected)
    first = len(content) - len(expected) if byte_range != "bytes=0-9" and byte_range != "bytes=5-5" else part.start
    assert answer.headers["Content-Range"] in (f"bytes {first}-{first + len(expected) - 1}/{len(content)}",)
    assert answer.headers["Content-Length"] == str(len(expected))
    answer, body = ask(address, CHUNK, "HEAD", Range=byte_range)
    assert (answer.status, body, answer.headers["Content-Length"]) == (206, b"", str(len(expected)))


def test_range_of_more_than_the_file_gives_the_whole_file(address, store):
    for byte_range in ("bytes=-99999999", "bytes=0-", "bytes=0-99999999"):
        answer, body = ask(address, CHUNK, Range=byte_range)
        assert answer.status in (200, 206)
        assert body == (store / CHUNK[1:]).read_bytes()


@pytest.mark.parametrize("byte_range", ["bytes=99999999-", "bytes=-0", "bytes=99999998-99999999"])
def test_range_outside_the_file_cannot_be_satisfied(address, store, byte_range):
    answer, body = ask(address, CHUNK, Range=byte_range)
    size = (store / CHUNK[1:]).stat().st_size
    assert (answer.status, body, answer.headers["Content-Range"]) == (416, b"", f"bytes */{size}")


@pytest.mark.parametrize("byte_range", ["bytes=0-1,5-6", "lines=1-2", "bytes=a-b", "bytes=", "bytes=5-2"])
def test_range_that_is_not_supported_gives_the_whole_file(address, store, byte_range):
    answer, body = ask(address, CHUNK, Range=byte_range)
    assert (answer.status, body) == (200, (store / CHUNK[1:]).read_bytes())


def test_range_of_a_file_that_has_changed_gives_the_whole_file(address):
    tag = ask(address, CHUNK)[0].headers["ETag"]
    assert ask(address, CHUNK, Range="bytes=-4", If_Range=tag)[0].status == 206
    assert ask(address, CHUNK, Range="bytes=-4", If_Range='"other"')[0].status == 200
    answer, body = ask(address, CHUNK, If_None_Match=tag)
    assert (answer.status, body) == (304, b"")


def test_types_and_sizes_are_stated(address, store):
    for path, kind in (
        ("/zarr.json", "application/json"),
        (CHUNK, "application/octet-stream"),
        ("/measurements.csv", "text/csv; charset=utf-8"),
    ):
        for method in ("GET", "HEAD"):
            answer, _ = ask(address, path, method)
            assert answer.status == 200
            assert answer.headers["Content-Type"] == kind
            assert answer.headers["Content-Length"] == str((store / path[1:]).stat().st_size)
            assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/case-001/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/..\\secret.txt",
        "/%252e%252e/secret.txt", "/..%5csecret.txt", "//secret.txt", "/../cohort.zarr-beside/secret.txt",
        "/way-out/secret.txt",
        "/file-out", "/loop", "/way-out", "/.hidden.partial", "/case-001", "/case-001/", "/", "/labels", "/none",
        "/zarr.json%00", "/%00", "/case-001/0/c/9/9/9", "/zarr.json/", "/./zarr.json", "/case-001//zarr.json",
        "/" + "a" * 5000,
    ],
)  # fmt: skip
def test_nothing_but_files_of_the_store_is_found(trapped, path):
    for method in ("GET", "HEAD"):
        answer, body = ask(trapped, path, method)
        assert answer.status in (400, 404), (path, answer.status)
        assert b"secret" not in body.replace(path.encode(), b"")
        assert b"zarr" not in body


def test_absolute_path_in_a_request_stays_in_the_store(trapped, store):
    secret = store.parent / "trapped" / "secret.txt"
    for path in (str(secret), f"{trapped}/../secret.txt", "file:///etc/passwd", "/etc/passwd"):
        answer, body = ask(trapped, path)
        assert answer.status in (400, 404)
        assert b"secret" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
def test_store_is_read_only(address, store, method):
    answer, _ = ask(address, "/zarr.json", method)
    assert answer.status == 405
    assert (store / "zarr.json").is_file()


def test_pages_of_viewers_and_of_this_machine_may_read_and_no_others(address):
    for origin, allowed in {
        "https://hms-dbmi.github.io": True,
        "https://neuroglancer-demo.appspot.com": True,
        "http://localhost:5173": True,
        "http://127.0.0.1:8000": True,
        "http://[::1]:8000": True,
        "https://evil.example": False,
        "https://localhost.evil.example": False,
        "https://127.0.0.1.evil.example": False,
        "null": False,
        "http://[broken": False,
    }.items():
        for method in ("GET", "OPTIONS"):
            answer, _ = ask(address, "/zarr.json", method, Origin=origin)
            assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None), origin
            assert "Origin" in answer.headers["Vary"]


def test_preflight_allows_ranges(address):
    answer, body = ask(
        address, CHUNK, "OPTIONS",
        Origin="https://hms-dbmi.github.io", Access_Control_Request_Method="GET",
        Access_Control_Request_Headers="range", Access_Control_Request_Private_Network="true",
    )  # fmt: skip
    assert (answer.status, body) == (204, b"")
    assert "Range" in answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
    answer, _ = ask(address, CHUNK, Origin="https://hms-dbmi.github.io", Range="bytes=-4")
    assert "Content-Range" in answer.headers["Access-Control-Expose-Headers"]


def test_other_sites_cannot_give_their_name_to_the_loopback_address(address, store):
    for host, status in {"localhost:80": 200, "127.0.0.1": 200, "[::1]:8": 200, "evil.example": 403}.items():
        assert ask(address, "/zarr.json", Host=host)[0].status == status
    with serving(app_for(store, ["*"], "0.0.0.0")) as everywhere:
        assert ask(everywhere, "/zarr.json", Host="ward-pc")[0].status == 200
        answer, _ = ask(everywhere, "/zarr.json", Origin="https://evil.example")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://evil.example"


def test_links_name_image_and_labels(store):
    (links,) = links_of(lungmix.open_cohort(store), "http://127.0.0.1:8642")
    assert links.image == "http://127.0.0.1:8642/case-001"
    # napari asks a plugin only about names that match the patterns of its manifest.
    assert fnmatch.fnmatch(links.napari.split()[-1], "*.zarr*")
    state = json.loads(unquote(links.neuroglancer.split("#!")[1]))
    assert [layer["name"] for layer in state["layers"]] == ["ct", "lung", "tissue", "tissue_median"]
    assert state["layers"][2]["source"] == "zarr3://http://127.0.0.1:8642/case-001/labels/tissue/"


@pytest.fixture(scope="module")
def indexed(store):
    """Address of the store, served with a page of links as by the command."""
    cohort = lungmix.open_cohort(store)
    with serving(app_for(store, index=lambda address, case: index_page(cohort, address, case))) as address:
        yield address


def test_first_page_and_address_of_a_case_list_links_for_viewers(indexed, store):
    (links,) = links_of(lungmix.open_cohort(store), indexed)
    for path in ("/", "/case-001", "/case-001/"):
        answer, body = ask(indexed, path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8"), path
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        text = html.unescape(body.decode())
        for link in (links.neuroglancer, links.vizarr, links.validator, links.napari, links.image):
            assert link in text, path
        head, nothing = ask(indexed, path, "HEAD")
        assert (head.status, head.headers["Content-Length"], nothing) == (200, str(len(body)), b"")


@pytest.mark.parametrize(
    "path", ["/case-002", "/labels", "/case-001/labels", "/case-001/0", "/..", "//", "/case-001//", "/%00", "/CASE-001"]
)
def test_first_page_opens_no_folder(indexed, path):
    assert ask(indexed, path)[0].status == 404


def test_zarr_reads_cases_of_a_store_with_a_page_of_links(indexed, store):
    assert ask(indexed, "/case-001/zarr.json")[1] == (store / "case-001" / "zarr.json").read_bytes()
    assert ask(indexed, "/", Host="evil.example")[0].status == 403


def test_page_of_links_of_an_empty_store_says_what_to_do(tmp_path):
    assert "lungmix run" in index_page(lungmix.open_cohort(tmp_path / "s.zarr", "a"), "http://127.0.0.1:1")


def test_store_is_at_the_address_with_an_extension_too(address):
    assert ask(address, "/store.zarr/case-001/zarr.json")[1] == ask(address, "/case-001/zarr.json")[1]
    assert ask(address, "/store.zarr/../secret.txt")[0].status == 404
    assert ask(address, "/store.zarr/store.zarr/zarr.json")[0].status == 404


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_command_prints_addresses_and_ends_quietly(store, ending):
    command = [
        sys.executable,
        "-c",
        "from lungmix.cli import main; main()",
        "serve",
        str(store),
        "--port",
        "0",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        served = json.loads(process.stdout.readline())
        for path in ("/zarr.json", "/", "/case-001"):
            assert ask(served["address"], path)[0].status == 200, path
        assert served["cases"][0]["image"] == f"{served['address']}/case-001"
        process.send_signal(ending)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")


def test_address_in_use_and_store_that_is_no_folder_are_rejected(store):
    cohort = lungmix.open_cohort(store)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(UsageError, match="`port`"):
            serve(cohort, print, port=listener.getsockname()[1])
    with pytest.raises(UsageError, match="`port`"):
        serve(cohort, print, port=99999)
    cohort.url = "s3://bucket/cohort.zarr"
    with pytest.raises(UsageError, match="give its address to a viewer"):
        serve(cohort, print)
