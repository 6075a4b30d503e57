"""Measure the publication of a cohort compared with ``cp`` and ``gzip -1`` of the same images on the same cores.

The images of the published scans are written as files without compression. ``cp`` copies each of them and ``gzip -1``
compresses the copy, two files at a time. The publication runs on a cluster of two workers that is ready. It also makes
tables, texts, sums and the check of the folder, which reads, decompresses and searches all files again. Both are timed
in turns. Memory is the peak of the client, and of the larger worker, for a quarter of the scans and for all.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from figures import Check, Sheet, Table, parser_for
from processes import MIB, Watch, in_fresh_process
from scans import cohort_of, folder_for

SHAPE, QUICK_SHAPE = (64, 256, 256), (40, 96, 96)
SCANS, QUICK_SCANS = 62, 8
TURNS = 3
IMAGES = ("ct", "lung", "side", "tissue", "tissue_median")


def main():
    parser = parser_for(__doc__)
    parser.add_argument("--number", type=int, help="number of scans, by default 62")
    chosen = parser.parse_args()
    number = chosen.number or (QUICK_SCANS if chosen.quick else SCANS)
    with folder_for(chosen.scans) as scans, tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        paths = cohort_of(scans, QUICK_SHAPE if chosen.quick else SHAPE, number)
        few, many = Path(folder) / "few", Path(folder) / "many"
        runs = []
        for place, listed, turns in ((few, paths[: number // 4], 1), (many, paths, 1 if chosen.quick else TURNS)):
            place.mkdir()
            in_fresh_process(make_store, place / "s.zarr", listed)
            in_fresh_process(write_plain, place / "s.zarr", place / "plain")
            for _ in range(turns):
                packed = copy_and_pack(place / "plain", place / "packed")
                runs.append({"scans": len(listed), "packed": packed, **in_fresh_process(published, place)})
    sheet = sheet_of(runs)
    sheet.show()
    sheet.save(chosen.out)


def make_store(store, paths):
    """Make a store of labelled scans."""
    import lungmix
    from lungmix.pipeline import Pipeline

    with lungmix.connect(workers=2) as client:
        report = Pipeline(client, lungmix.open_cohort(str(store), "a")).run(paths, model="published")
    assert not report.failed, report.failed


def write_plain(store, folder):
    """Write the images of a store as files of voxels alone."""
    import lungmix

    folder.mkdir()
    for name, case in lungmix.open_cohort(str(store)).items():
        for image in IMAGES:
            (folder / f"{name}_{image}").write_bytes(np.asarray(case.zarr_array(image)[:]).tobytes())


def copy_and_pack(plain, packed):
    """Return the seconds of ``cp`` and ``gzip -1`` of all files, two at a time."""
    shutil.rmtree(packed, ignore_errors=True)
    packed.mkdir()
    names = "\0".join(sorted(file.name for file in plain.iterdir()))
    script = f'cp "{plain}/$0" "{packed}/$0" && gzip -1 "{packed}/$0"'
    start = time.perf_counter()
    subprocess.run(["xargs", "-0", "-P", "2", "-n", "1", "sh", "-c", script], input=names.encode(), check=True)
    return time.perf_counter() - start


def published(place):
    """Return the seconds of a publication on a running cluster, the bytes of its voxels, and peaks of memory."""
    import lungmix
    from lungmix.publish import About, Creator, publish

    cohort = lungmix.open_cohort(str(place / "s.zarr"))
    shutil.rmtree(place / "data", ignore_errors=True)
    with lungmix.connect(workers=2) as client:
        workers = [*client.run(os.getpid).values()]
        watch = Watch([os.getpid(), *workers])
        watch.start()
        start = time.perf_counter()
        result = publish(cohort, place / "data", About("T", "1.0", "CC0-1.0", (Creator("Doe, Jane"),)), client=client)
        seconds = time.perf_counter() - start
        watch.stop()
    assert result.is_complete, result.problems
    size = sum(file.stat().st_size for file in (place / "plain").iterdir())
    peaks = {"client": watch.peaks[os.getpid()], "worker": max(watch.peaks[pid] for pid in workers)}
    return {"seconds": seconds, "bytes": size, **peaks}


def sheet_of(runs):
    """Return the tables and checks of all runs."""
    few, many = ([one for one in runs if one["scans"] == n] for n in (runs[0]["scans"], runs[-1]["scans"]))
    ratio = statistics.median(one["packed"] / one["seconds"] for one in many)
    peak = {name: [max(one[name] for one in each) / MIB for each in (few, many)] for name in ("client", "worker")}
    rows = [
        [str(one["scans"]), f"{one['bytes'] / 1e6:.0f}", f"{one['packed']:.1f}", f"{one['seconds']:.1f}",
         f"{one['bytes'] / 1e6 / one['seconds']:.0f}", f"{one['packed'] / one['seconds']:.2f}",
         f"{one['client'] / MIB:.0f}", f"{one['worker'] / MIB:.0f}"]
        for one in runs
    ]  # fmt: skip
    columns = ["scans", "MB of voxels", "cp and gzip, s", "publish, s", "MB/s", "ratio", "client, MiB", "worker, MiB"]
    return Sheet(
        "publishing",
        [Table("Publication compared with cp and gzip -1", columns, rows)],
        [
            Check("rate of a publication, of that of cp and gzip -1", ratio, 0.6),
            *(
                Check(
                    f"memory of the {name}, of that for fewer scans",
                    sizes[1] / sizes[0],
                    1.3,
                    at_least=False,
                )
                for name, sizes in peak.items()
            ),
        ],
        {"runs": runs},
    )


if __name__ == "__main__":
    main()
