"""After kernels were compiled in advance, a job compiles none of the kernels that it needs."""

import subprocess
import sys

SCRIPT = """
# Runs a job with one worker in the same process, and prints the kernels that had to be compiled.
import sys
from pathlib import Path

import numba
from distributed import Client

import lungmix
from lungmix.kernels.compile import compile_kernels
from lungmix.mixture.compile import compile_kernels as compile_e_step
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.phantom import Cohort, write_cohort
from lungmix.pipeline import Pipeline


def signatures():
    compiled = set()
    for name, module in list(sys.modules.items()):
        if name.startswith("lungmix."):
            for kernel in vars(module).values():
                if isinstance(kernel, numba.core.dispatcher.Dispatcher):
                    compiled |= {(kernel.py_func.__qualname__, str(types)) for types in kernel.signatures}
    return compiled


if __name__ == "__main__":
    compile_kernels()
    compile_e_step()
    before = signatures()
    folder = Path(sys.argv[1])
    write_cohort(folder / "scans", Cohort(2, 3, (90, 64, 64), (5.6, 5.6, 3.0), frozenset({"vessels"})), "mixed")
    small = {"opening": 1, "min_voxels": 3000, "radii": (4, 3)}
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        for slices, mask in ((8, MaskParameters(**small)), (64, MaskParameters("physical"))):
            cohort = lungmix.open_cohort(folder / f"{slices}.zarr", "a")
            pipeline = Pipeline(client, cohort)
            result = pipeline.run([folder / "scans"], mask=mask, chunk_slices=slices, fit=FitParameters(n_components=3))
            assert not result.failed, result.failed
            for method in ("em", "minibatch"):
                pipeline.fit(fit=FitParameters(n_components=3, n_init=1, max_iter=2, method=method))
            assert not pipeline.label().failed
            assert not pipeline.measure(radiomics=True).failed
    for kernel, types in sorted(signatures() - before):
        print(kernel, types)
"""


def test_job_needs_no_kernel_that_was_not_compiled_in_advance(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == []
