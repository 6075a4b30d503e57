"""Choice of the cluster, and the memory and cores that a local cluster uses."""

import subprocess
import sys
import time

import dask
import pytest
from distributed import LocalCluster, default_client
from distributed.client import _current_client

import lungmix
from lungmix.cluster import check_memory, dashboard_of, local, machine
from lungmix.cluster.client import CleanClient
from lungmix.errors import ClusterError
from support.clusters import free_port

GIB = 1 << 30


@pytest.mark.usefixtures("hasty")
def test_scheduler_of_dasks_configuration_is_used_with_a_warning():
    address, said = f"tcp://127.0.0.1:{free_port()}", []
    with dask.config.set({"scheduler-address": address}), pytest.raises(ClusterError, match="dask's configuration"):
        lungmix.connect(warn=said.append)
    assert address in said[0]


@pytest.fixture
def no_other_client(monkeypatch):
    """Hide the clients of other tests in this process."""
    monkeypatch.setattr("distributed.client._global_clients", {})
    token = _current_client.set(None)
    with dask.config.set(scheduler=None):
        yield
    _current_client.reset(token)


def assert_computed_without_a_client():
    with pytest.raises(ValueError, match="No client"):
        default_client()
    assert dask.delayed(sum)([1, 2]).compute() == 3


def test_failed_connection_leaves_no_client(no_other_client):
    with pytest.raises(ClusterError, match="no scheduler answers at nonsense"):
        lungmix.connect("nonsense://127.0.0.1:1")
    assert_computed_without_a_client()


def test_failed_start_of_workers_leaves_no_client(no_other_client, monkeypatch):
    monkeypatch.setattr(local, "WORKER_PRELOAD", "no_such_module")
    with pytest.raises(ClusterError, match="workers cannot start"):
        lungmix.connect(workers=1, memory_limit="1GB")
    assert_computed_without_a_client()


def test_client_that_is_closed_within_its_block_is_no_default(no_other_client):
    with CleanClient(processes=False, n_workers=0, dashboard_address=None) as client:
        client.close()
    assert_computed_without_a_client()


@pytest.mark.slow
def test_local_cluster_ignores_the_scheduler_of_dasks_configuration():
    other = {
        "scheduler-address": "tcp://127.0.0.1:1",
        "distributed.comm.default-scheme": "tls",
        "distributed.comm.require-encryption": True,
        "distributed.dashboard.link": "/user/{NOT_SET_ANYWHERE}/{port}",
    }
    with dask.config.set(other), lungmix.connect(workers=1, memory_limit="1GB") as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert dashboard_of(client) is None


@pytest.mark.slow
def test_adaptive_cluster_without_workers_starts_one():
    with LocalCluster(
        n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", silence_logs=50
    ) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="100ms", wait_count=1)
        with lungmix.connect(cluster.scheduler_address, timeout=60) as client:
            end = time.monotonic() + 60
            while client.scheduler_info()["workers"]:
                assert time.monotonic() < end
                time.sleep(0.05)
            assert client.submit(sum, [1, 2]).result() == 3


def test_scheduler_that_the_user_chose_is_back_after_a_client(no_other_client):
    with dask.config.set(scheduler="synchronous"):
        with CleanClient(processes=False, n_workers=0, dashboard_address=None):
            assert dask.config.get("scheduler") != "synchronous"
        assert dask.config.get("scheduler") == "synchronous"


@pytest.mark.slow
def test_workers_with_less_memory_than_any_stage_needs_are_rejected():
    with (
        lungmix.connect(workers=1, memory_limit="500MB") as client,
        pytest.raises(ClusterError, match=r"500 MB.* at least 930 MB"),
    ):
        check_memory(client)


def script(tmp_path, text, **options):
    """Run a script of a user."""
    file = tmp_path / "script.py"
    file.write_text(text)
    return subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(
    "text",
    [
        "import lungmix\nclient = lungmix.connect(\n    workers=1\n)\n",
        "from lungmix import connect\nwith open(__file__):\n    with connect(workers=1) as client:\n        print(1)\n",
        "import lungmix\ndef work():\n    lungmix.connect(workers=1)\nwork()\n",
    ],
)
def test_script_without_a_main_guard_ends_with_one_sentence(tmp_path, text):
    done = script(tmp_path, text)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("workers cannot start")
    assert 'if __name__ == "__main__":' in line


@pytest.mark.slow
def test_script_that_workers_run_again_ends_with_one_sentence(tmp_path):
    done = script(tmp_path, "import lungmix\nif lungmix:\n    lungmix.connect(workers=1)\n")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'if __name__ == "__main__":' in line


def test_script_without_a_main_guard_can_catch_the_error(tmp_path):
    text = (
        "import contextlib, lungmix\nfrom lungmix.errors import ClusterError\nwith contextlib.suppress(ClusterError):\n"
    )
    done = script(tmp_path, f"{text}    lungmix.connect(workers=1)\nprint('caught')\n")
    assert (done.stdout, done.stderr, done.returncode) == ("caught\n", "", 0)


GUARDED = [
    "from lungmix.cluster import main_guard\nif __name__ == '__main__':\n    print(main_guard.is_certain())\n",
    "from lungmix.cluster import main_guard\nimport os\n"
    "if 'INSIDE' not in os.environ:\n    print(main_guard.is_certain())\n",
    "from lungmix.cluster import main_guard\nimport multiprocessing\n"
    "parent = multiprocessing.parent_process()\nparent or print(main_guard.is_certain())\n",
]


@pytest.mark.parametrize("text", GUARDED)
def test_script_that_may_have_a_guard_is_accepted(tmp_path, text):
    assert script(tmp_path, text).stdout == "False\n"


@pytest.mark.parametrize("how", ["-c", "-", "-m"])
def test_code_that_workers_do_not_run_again_is_accepted(tmp_path, how):
    text = "from lungmix.cluster import main_guard\nprint(main_guard.is_certain(), main_guard.is_likely())\n"
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(text)
    words = {"-c": [text], "-": [], "-m": ["package"]}[how]
    done = subprocess.run(
        [sys.executable, how, *words], input=text, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.stdout == "False False\n", done.stderr


def test_script_from_the_standard_input_is_rejected_with_a_remedy():
    text = (
        "import lungmix\nfrom lungmix.errors import UsageError\n"
        "try:\n    lungmix.connect(workers=1)\nexcept UsageError as error:\n    print(error)\n\n"
    )
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("workers cannot start from a script that is read from the standard input")
    assert "python -c" in done.stdout
    assert done.stderr == ""


def groups(folder, line, **files):
    """Return a file that lists the control groups of a process, and the folder of the groups."""
    for name, text in files.items():
        file = folder / "cgroup" / name.replace("__", "/").replace("-", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "self").write_text(line)
    return folder / "cgroup", folder / "self"


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/job/step\n", {"job__memory-max": f"{GIB}\n", "job__step__memory-max": "max\n"}),
        ("0::/job/step\n", {"job__step__memory-max": f"{GIB}\n"}),
        ("4:memory:/slurm/job\n0::/\n", {"memory__slurm__memory-limit_in_bytes": f"{GIB}\n"}),
        ("0::/of/the/host\n", {"memory-max": f"{GIB}\n"}),
    ],
)
def test_memory_limit_is_that_of_the_control_group_or_of_one_around_it(tmp_path, monkeypatch, line, files):
    monkeypatch.setattr(machine, "MEMORY_LIMIT", 8 * GIB)
    assert machine.memory_limit({}, *groups(tmp_path, line, **files)) == GIB


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "2048"}, 2 * GIB),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "3"}, 3 * GIB),
        ({"SLURM_MEM_PER_NODE": "0"}, 8 * GIB),
        ({"SLURM_MEM_PER_CPU": "much", "SLURM_CPUS_ON_NODE": ""}, 8 * GIB),
    ],
)
def test_memory_limit_is_that_of_the_slurm_job(tmp_path, monkeypatch, variables, expected):
    monkeypatch.setattr(machine, "MEMORY_LIMIT", 8 * GIB)
    assert machine.memory_limit(variables, tmp_path, tmp_path / "none") == expected


def test_cores_are_those_of_the_control_group_or_of_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPU_COUNT", 16)
    control_groups = groups(
        tmp_path, "0::/job/step\n", **{"job__cpu-max": "250000 100000\n", "job__step__cpu-max": "max 100000\n"}
    )
    assert machine.cpu_count({}, *control_groups) == 3
    assert machine.cpu_count({"SLURM_CPUS_ON_NODE": "2"}, *control_groups) == 2


def test_workers_share_the_memory_and_cores_of_the_program(monkeypatch):
    monkeypatch.setattr(machine, "memory_limit", lambda: 10 * GIB)
    monkeypatch.setattr(machine, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "process_limit", lambda: None)
    assert local._shape(None, None) == (4, 9 * GIB // 4)
    assert local._shape(None, "3GiB") == (3, 3 * GIB)
    monkeypatch.setattr(machine, "process_limit", lambda: GIB)
    assert local._shape(None, None) == (4, GIB)
