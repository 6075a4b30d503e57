"""Kill a random process every few seconds while cohorts run, and compare each store with an undisturbed one.

``python tests/faults/kills.py --kills 50`` makes one store after the other until 50 processes have been killed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.processes import Cluster, run_with_kills, start_run
from lungmix.phantom import Cohort, write_cohort
from support.stores import assert_same_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--pause", type=float, nargs=2, default=(2.0, 6.0), help="seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep everything there")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    scans = folder / "scans"
    write_cohort(scans, Cohort(options.scans, 3, (200, 96, 96), (3.7, 3.7, 1.5), frozenset({"vessels"})), "mixed")
    start = time.monotonic()
    with Cluster(folder) as cluster:
        client = start_run(
            folder / "undisturbed.zarr", [scans], "--scheduler", cluster.address, log=folder / "client.log"
        )
        assert client.wait(1200) == 0, (folder / "client.log").read_text()
    print(f"undisturbed: {time.monotonic() - start:.0f} s")
    killed: list[str] = []
    rounds = 0
    start = time.monotonic()
    while len(killed) < options.kills:
        store = folder / f"round-{rounds}.zarr"
        left = options.kills - len(killed)
        killed += run_with_kills(store, [scans], folder, left, tuple(options.pause), options.seed + rounds)
        assert_same_store(folder / "undisturbed.zarr", store)
        shutil.rmtree(store)
        rounds += 1
        print(f"round {rounds}: {len(killed)} kills so far {dict(Counter(killed))}, same bytes", flush=True)
    print(
        f"{len(killed)} kills in {rounds} runs of {options.scans} scans, {time.monotonic() - start:.0f} s: same bytes"
    )
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
