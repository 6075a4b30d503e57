"""The recipe for Kubernetes, without Kubernetes: its operator's schema accepts it, and commands run as processes."""

import os
import re
import shlex
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from distributed import Scheduler
from jsonschema import Draft202012Validator

from lungmix.cluster import WORKER_ENVIRONMENT
from support.clusters import free_port, wait_until
from support.recipes import (
    ELSEWHERE,
    RECIPES,
    assert_done,
    assert_equal,
    assert_nothing_is_left,
    assert_work_goes_to_workers_like_local_ones,
    running,
    story,
    words,
)

pytestmark = pytest.mark.slow

OPERATOR = Path(sys.prefix) / "dask-kubernetes" / "dask_kubernetes" / "operator"
IMAGE = ELSEWHERE | {
    "PATH": f"{Path(sys.executable).parent}:{ELSEWHERE['PATH']}",
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
}


@pytest.fixture
def cluster():
    return yaml.safe_load((RECIPES / "kubernetes.yaml").read_text())


@pytest.fixture
def scheduler(cluster):
    (container_found,) = cluster["spec"]["scheduler"]["spec"]["containers"]
    return container_found


@pytest.fixture
def worker(cluster):
    (container_found,) = cluster["spec"]["worker"]["spec"]["containers"]
    return container_found


def closed(schema):
    """Return a schema that rejects fields that it does not name, as `kubectl apply` does."""
    schema_closed = dict(schema)
    if "properties" in schema:
        schema_closed["properties"] = {name: closed(part) for name, part in schema["properties"].items()}
        schema_closed.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            schema_closed[inner] = closed(schema[inner])
    return schema_closed


def test_operator_knows_every_field(cluster):
    crds = OPERATOR / "deployment" / "helm" / "dask-kubernetes-operator" / "crds"
    definition = yaml.safe_load((crds / "daskcluster.yaml").read_text())["spec"]
    (version,) = definition["versions"]
    assert cluster["apiVersion"] == f"{definition['group']}/{version['name']}"
    assert cluster["kind"] == definition["names"]["kind"]
    schema = closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    wrong = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(cluster["spec"])
    ]
    assert not wrong


def test_parts_of_the_recipe_name_each_other(cluster, scheduler, worker):
    pod, service = cluster["spec"]["worker"]["spec"], cluster["spec"]["scheduler"]["service"]
    assert {port["name"] for port in worker["volumeMounts"]} == {port["name"] for port in pod["volumes"]}
    assert {port["name"]: port["value"] for port in worker["env"]} == WORKER_ENVIRONMENT
    assert scheduler["image"] == worker["image"]
    assert service["selector"]["dask.org/cluster-name"] == cluster["metadata"]["name"]
    ports = {port["name"]: port["containerPort"] for port in scheduler["ports"]}
    assert ports == {"tcp-comm": Scheduler.default_port, "http-dashboard": 8787}
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    assert scheduler["readinessProbe"]["httpGet"]["port"] in ports


def test_commands_of_the_pods_give_the_voxels_of_a_local_cluster(
    cluster, scheduler, worker, two_scans, local, tmp_path
):
    ports = {port["name"]: free_port() for port in scheduler["ports"]}
    address = f"tcp://127.0.0.1:{ports['tcp-comm']}"
    probe = scheduler["readinessProbe"]["httpGet"]
    url = f"http://127.0.0.1:{ports[probe['port']]}{probe['path']}"
    store = tmp_path / "s.zarr"
    pods = {}
    with ExitStack() as stack:

        def start(name, command, environment):
            (tmp_path / name).mkdir()
            pods[name] = stack.enter_context(running(command, environment, tmp_path / name))

        # In a cluster, the image has the environment, and each pod has its own address; here all use the loopback one.
        near = ("--host", "127.0.0.1", "--port", str(ports["tcp-comm"]))
        near += ("--dashboard-address", f"127.0.0.1:{ports['http-dashboard']}")
        start("lungmix-scheduler", *in_pod(scheduler, {}, *near))
        wait_until(lambda: answers(url) == 200, lambda: story(tmp_path / "lungmix-scheduler"))
        names = [f"lungmix-default-worker-{index}" for index in range(2)]
        for name in names:
            # Variables that the operator adds to the environment of every worker.
            given = {"DASK_WORKER_NAME": name, "DASK_SCHEDULER_ADDRESS": address}
            start(name, *in_pod(worker, given, "--local-directory", str(tmp_path)))
        start("client", *client_of_the_docs(store, two_scans, address))
        client = pods.pop("client")
        assert sorted(assert_work_goes_to_workers_like_local_ones(address)) == names
        assert_done(client, tmp_path / "client")
        for name, pod in reversed(pods.items()):
            pod.terminate()
            pod.wait(cluster["spec"]["worker"]["spec"]["terminationGracePeriodSeconds"])
            assert_nothing_is_left({pod.pid})
            assert "Traceback" not in story(tmp_path / name)
    assert_equal(store, local)


def in_pod(container, given, *more):
    """Return command and environment of a container, with `$(NAME)` replaced as in a pod."""
    variables = {variable["name"]: variable["value"] for variable in container["env"]} | given
    command = [re.sub(r"\$\((\w+)\)", lambda name: variables.get(name[1], name[0]), word) for word in container["args"]]
    return [*command, *more], IMAGE | variables


def client_of_the_docs(store, scans, address):
    """Return the command of the documentation, for the scans of the test."""
    places = {"/data/cohort.zarr": str(store), "/data/scans": str(scans), "tcp://127.0.0.1:8786": address}
    docs = (RECIPES.parent / "clusters.md").read_text().splitlines()
    (line,) = (line for line in docs if line.startswith("lungmix run /data/"))
    command = shlex.split(line, comments=True)
    assert set(places) < set(command)
    return [*(places.get(word, word) for word in command), *words(store, scans)[3:]], IMAGE


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
