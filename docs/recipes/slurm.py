"""lungmix on SLURM, workers as jobs: ``python slurm.py WORKERS STORE SOURCE...`` and any options of ``lungmix run``.

Run it where `sbatch` works and jobs can reach it, such as a login node or a small job of its own. Everything that
differs between sites stands at the top.
"""

import subprocess
import sys

import dask
from dask_jobqueue import SLURMCluster

from lungmix.cluster import WORKER_ENVIRONMENT

WALLTIME = "04:00:00"
LIFETIME = ["--lifetime", "225m", "--lifetime-stagger", "10m"]  # a worker leaves before SLURM ends its job
MEMORY = "2GB"  # of each worker
SITE = {
    # "queue": "normal", "account": "my-project", "interface": "ib0", "job_extra_directives": ["--exclude=node13"],
    # "job_script_prologue": ["module load python/3.12", "source ~/lungmix/bin/activate"],
}


def main(workers, words):
    """Start a scheduler here and workers as jobs, run lungmix, and end both."""
    site = dict(SITE)
    site["job_script_prologue"] = [
        *site.pop("job_script_prologue", []),
        *(f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()),
    ]
    site["worker_extra_args"] = [*site.pop("worker_extra_args", []), *LIFETIME]
    dask.config.set({"distributed.scheduler.worker-saturation": 1.0})
    with SLURMCluster(cores=1, processes=1, memory=MEMORY, walltime=WALLTIME, **site) as cluster:
        # Where a worker leaves or a job is ended, another one is submitted.
        cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
        return subprocess.run(["lungmix", "run", *words, "--scheduler", cluster.scheduler_address]).returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
