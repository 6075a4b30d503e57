"""A store in a bucket whose server fails during a run: the run ends with a sentence, and the next run resumes."""

import pytest
from distributed import Client, LocalCluster

import lungmix
from lungmix import s3 as connections
from lungmix.cli.app import _status_of
from lungmix.phantom import Cohort, write_cohort
from support.gateway import STOPPED, running_gateway

pytestmark = pytest.mark.slow

SMALL = ["--preset", "paper", "--opening", "1", "--min-voxels", "3000", "--radius", "4", "--radius", "3"]
CASES = 4


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_cohort(folder, Cohort(CASES, 3, (40, 64, 64), (5.6, 5.6, 7.5), frozenset()), "nrrd")
    return folder


@pytest.fixture(scope="module")
def cluster():
    """Workers in this process, so that the test can set how often they repeat requests."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", host="127.0.0.1",
            dashboard_address="127.0.0.1:0", memory_limit=None,
        ) as running,
        Client(running),
    ):  # fmt: skip
        yield running.scheduler_address


@pytest.mark.parametrize(
    ("status", "reason", "request_", "kept"),
    [
        (STOPPED, "does not answer", "PUT .*/case-001/labels/lung/0/c/", "PUT /cohorts/0.zarr/case-001/0/c/"),
        (503, "reports an internal error", "PUT .*/case-001/0/c/", None),
        (
            403,
            "access is denied",
            "PUT .*/case-001/labels/tissue/0/c/",
            "PUT /cohorts/403.zarr/case-001/labels/lung/0/c/",
        ),
    ],
    ids=["stopped-mask", "503-convert", "403-label"],
)
def test_run_whose_bucket_fails_ends_in_one_sentence_and_resumes(
    status, reason, request_, kept, bucket, sources, cluster, monkeypatch, capfd
):
    monkeypatch.setattr(connections, "RETRIES", 1)
    url = bucket.url(f"{status}.zarr")
    words = ["run", url, str(sources), *SMALL, "--model", "published", "--quiet", "--scheduler", cluster]
    with running_gateway(bucket.endpoint) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.address)
        gateway.fail_from(request_, status)
        ended = _status_of(words)
        said = capfd.readouterr().err
        assert gateway.tripped.is_set()
        assert ended == 2
        assert [line for line in said.splitlines() if line.startswith("lungmix: ")] == [said.splitlines()[-1]]
        assert f"{url} cannot be reached (" in said.splitlines()[-1]
        assert reason in said.splitlines()[-1]
        assert "unexpected" not in said
        assert "Traceback" not in said
        assert not [request for request in gateway.failed if f"case-00{CASES}" in request]
        gateway.recover()
        gateway.passed.clear()
        assert _status_of(words) == 0, capfd.readouterr().err
        assert len(lungmix.open_cohort(url)) == CASES
        assert kept is None or not [request for request in gateway.passed if kept in request]
