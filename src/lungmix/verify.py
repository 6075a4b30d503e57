"""Make cases again beside a store, and compare: every byte, from the sources or from the stored images."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from distributed import Client

from lungmix.engine import Listener
from lungmix.errors import DamageError, LungmixError
from lungmix.formats import Scan
from lungmix.mixture import TissueModel
from lungmix.parameters import MaskParameters
from lungmix.stages import convert, label, mask, side
from lungmix.store import MODEL_FILE, Case, Cohort, open_cohort
from lungmix.store.case import LABELS_FILE
from lungmix.store.check import wrong_list
from lungmix.store.objects import Receipts, receipt_of

VERIFY = "verify"


def sample_of(names: Sequence[str], size: int, seed: int | None = None) -> list[str]:
    """Some names, drawn by chance, in their order."""
    return sorted(random.Random(seed).sample(list(names), min(size, len(names))))


def verify_cases(
    client: Client,
    cohort: Cohort,
    names: Sequence[str],
    scans: Mapping[str, Scan],
    listener: Listener | None = None,
) -> dict[str, list[str]]:
    """Compare cases with what their receipts say and with what is made again.

    Parameters
    ----------
    client : distributed.Client
        Does the work.
    cohort : Cohort
        The store; it is only read. What is made again lies beside it for a while.
    names : sequence of str
        Cases.
    scans : mapping of str to Scan
        Sources by case, where they are at hand; images of others are compared with the digest of their voxels.
    listener : Listener, optional
        Hears of progress.

    Returns
    -------
    dict of str to list of str
        What differs, by case; empty lists where all is as it should be. Cases whose metadata cannot be read are told
        too, whichever are asked for.
    """
    listener = listener or Listener()
    text = cohort.read_text(MODEL_FILE)
    model = None if text is None else TissueModel.from_json(text)
    found: dict[str, list[str]] = {}
    listener.begin(VERIFY, names)
    try:
        for name in names:
            found[name] = _verify(client, cohort, name, scans.get(name), model)
            listener.finish(name, "; ".join(found[name][:3]) or None)
    finally:
        listener.end()
    return found | {name: [reason] for name, reason in cohort.damaged.items()}


def damaged_objects(case: Case) -> list[str]:
    """Keys of objects whose bytes are not those that their stage wrote; all of them are read."""
    records = [record.get("files", {}) for record in case.stages.values()]
    listed = [LABELS_FILE] if wrong_list(case, case.sizes()) else []
    return listed + [
        key
        for files in [*records, case.packed_files]
        for key, receipt in files.items()
        if receipt_of(case.read_object(key) or b"") != receipt
    ]


def _verify(client: Client, cohort: Cohort, name: str, scan: Scan | None, model: TissueModel | None) -> list[str]:
    case = cohort[name]
    wrong = [f"{stage}: {one['reason']}" for stage, one in case.damage.items()]
    wrong += [f"{key} is not what was written" for key in damaged_objects(case)]
    if convert.STAGE not in case.stages:
        return [*wrong, "there is no whole image"]
    if wrong:
        return wrong
    try:
        wrong += _other_voxels(case, scan)
        with _beside(cohort) as scratch:
            _copy_image(case, scratch, name)
            if mask.STAGE in case.stages:
                mask.mask_case(client, scratch, name, MaskParameters(**case.stages[mask.STAGE]["parameters"]))
                wrong += _differing(case, scratch[name], mask.STAGE)
            if label.STAGE in case.stages and model is not None:
                if case.stages[label.STAGE]["key"] != label.key_for(case, model):
                    return [*wrong, "its labels are not those of the store's model: run `lungmix label`"]
                label.label_case(client, scratch, name, model)
                wrong += [one for stage in (side.STAGE, label.STAGE) for one in _differing(case, scratch[name], stage)]
    except DamageError as error:
        wrong.append(f"{error.array} is damaged in {error.where}")
    except LungmixError as error:
        wrong.append(error.anonymous)
    return wrong


def _other_voxels(case: Case, scan: Scan | None) -> list[str]:
    """Compare the stored image with the digest of its conversion, and with the source."""
    expected, digest = case.stages[convert.STAGE]["voxels_sha256"], hashlib.sha256()
    for start, stop in case.layout.slabs():
        digest.update(case.read("ct", start, stop).data)
    wrong = [] if digest.hexdigest() == expected else ["the image is not the one that was converted"]
    if scan is not None:
        source = hashlib.sha256()
        for slab in scan.slabs(case.layout.slab):
            source.update(slab.tobytes())
        if source.hexdigest() != expected:
            wrong.append("the image is not that of the source")
    return wrong


@contextmanager
def _beside(cohort: Cohort) -> Iterator[Cohort]:
    """An empty store beside another one, which the workers can reach too, for the length of a block."""
    scratch = open_cohort(f"{cohort.url.rstrip('/')}.verify-{uuid.uuid4().hex[:8]}", "a")
    try:
        yield scratch
    finally:
        scratch.delete()


def _copy_image(case: Case, scratch: Cohort, name: str) -> None:
    copy = scratch.add(name, case.geometry, case.acquisition, chunk_slices=case.chunk_slices)
    record = dict(case.stages[convert.STAGE])
    files: Receipts = record.pop("files", {})
    for key in [*files, *case.packed_files]:
        copy.write_object(key, case.read_object(key) or b"")
    if case.packed_threshold is not None:
        copy.record_packed(case.packed_threshold, case.packed_files)
    copy.record(convert.STAGE, record, files)


def _differing(case: Case, again: Case, stage: str) -> list[str]:
    if stage not in case.stages:
        return []
    was, now = case.stages[stage], again.stages[stage]
    if was["key"] != now["key"]:
        return [f"{stage} was made from something else, or by another version"]
    before, after = was.get("files", {}), now.get("files", {})
    return [f"{key} comes out otherwise" for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
