"""Commands that only read histograms start workers for large cohorts."""

from contextlib import contextmanager

import pytest

from lungmix.cli import running
from lungmix.cli.option_groups import OnCluster
from lungmix.store import CohortWriter, open_cohort


@pytest.mark.parametrize(
    ("scans", "options", "expected"),
    [
        (3, {"needed": False}, False),
        (2, {"needed": False, "reads_histograms": True}, False),
        (3, {"needed": False, "reads_histograms": True}, True),
        (2, {"needed": True, "reads_histograms": True}, True),
    ],
)
def test_workers_start_for_histograms_of_many_cases(tmp_path, monkeypatch, scans, options, expected):
    store, sessions = str(tmp_path / "s.zarr"), []

    @contextmanager
    def session(cluster, *, needed):
        sessions.append(needed)
        yield None, None

    monkeypatch.setattr(running, "cluster_session", session)
    monkeypatch.setattr(running, "_MANY_CASES", 3)
    names = [f"case-{number:03d}" for number in range(scans)]
    CohortWriter(open_cohort(store, "a")).register_scans({name: {"key": name, "source": name} for name in names})
    with running.pipeline_on(store, OnCluster(quiet=True), **options) as pipeline:
        assert pipeline.cohort.register.keys() == set(names)
    assert sessions == [expected]
