"""Recipes for clusters that no test has: what they would ask for."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from dask_jobqueue import PBSCluster

from lungmix.engine import WORKER_ENVIRONMENT

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"


def test_pbs_is_asked_for_one_worker_a_job_with_the_settings_of_local_clusters():
    scripts, asked, ran = [], [], []

    class Recorded(PBSCluster):
        def adapt(self, **bounds):
            scripts.append(self.job_script())
            asked.append(bounds)

    names = runpy.run_path(str(RECIPES / "pbs.py"), run_name="recipe")
    main = names["main"]
    main.__globals__["PBSCluster"] = Recorded
    main.__globals__["SITE"] |= {"interface": "lo", "scheduler_options": {"dashboard_address": "127.0.0.1:0"}}
    main.__globals__["subprocess"] = SimpleNamespace(
        run=lambda words: ran.append(words) or SimpleNamespace(returncode=7)
    )
    assert main(16, ["s.zarr", "scans"]) == 7
    assert asked == [{"minimum_jobs": 16, "maximum_jobs": 16}]
    (script,) = scripts
    assert "#PBS -l select=1:ncpus=1:mem=2500mb" in script
    assert f"#PBS -l walltime={names['WALLTIME']}" in script
    assert "--nthreads 1 " in script
    assert "--lifetime 225m --lifetime-stagger 10m" in script
    for name, value in WORKER_ENVIRONMENT.items():
        assert f"export {name}={value}" in script
    (words,) = ran
    assert words[:4] == ["lungmix", "run", "s.zarr", "scans"]
    assert words[4:] == ["--scheduler", words[-1]]
    assert words[-1].startswith("tcp://127.0.0.1:")


def test_kubernetes_workers_get_the_settings_of_local_clusters_and_mount_what_they_name():
    cluster = yaml.safe_load((RECIPES / "kubernetes.yaml").read_text())
    assert (cluster["apiVersion"], cluster["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    pod = cluster["spec"]["worker"]["spec"]
    (worker,) = pod["containers"]
    assert {one["name"]: one["value"] for one in worker["env"]} == WORKER_ENVIRONMENT
    assert worker["args"][:2] == ["dask", "worker"]
    assert {one["name"] for one in worker["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    (scheduler,) = cluster["spec"]["scheduler"]["spec"]["containers"]
    assert scheduler["image"] == worker["image"]
    ports = {one["name"] for one in scheduler["ports"]}
    service = cluster["spec"]["scheduler"]["service"]
    assert {one["targetPort"] for one in service["ports"]} == ports
    assert service["selector"]["dask.org/cluster-name"] == cluster["metadata"]["name"]
