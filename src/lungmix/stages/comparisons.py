"""Segments of a store, and the segments of a mask file that they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lungmix.errors import SourceError, StoreError, UsageError, first_of, mark_untrusted
from lungmix.formats.masks import REGIONS, Segment, region_of_name
from lungmix.stages import regions
from lungmix.store import Case
from lungmix.store.schema import LABEL, MASK
from lungmix.tissue import DENSE, INVOLVED, LEFT, LUNGS, RIGHT, SIDES, TISSUES

LUNGS_ROW, MASK_ROW, LESION = "lungs", "mask", "lesion"
"""Segments besides single regions and tissues.

``lungs`` is both lungs together. ``mask`` is the whole mask: lungs, airway and everything elsewhere. ``lesion`` is all
tissues that count as involved.
"""

PRESETS = ("lungs", "tissues")
_HIGHEST_LABEL = 255
_MAX_LISTED = 8

SEGMENTS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    LUNGS_ROW: ("side", tuple(lung.label for lung in LUNGS)),
    MASK_ROW: ("lung", (1,)),
    **{side.key: ("side", (side.label,)) for side in SIDES},
    **{tissue.key: ("tissue", (tissue.label,)) for tissue in TISSUES},
    LESION: ("tissue", tuple(tissue.label for tissue in TISSUES if tissue.key in INVOLVED)),
    "lungs_aerated": ("region", tuple(part.label for part in DENSE[:2])),
    **{part.key: ("region", (part.label,)) for part in DENSE},
}
"""For each segment of a store that can be compared: the image that holds it, and its labels there."""


AERATED = {LUNGS_ROW: "lungs_aerated", RIGHT.key: "right_aerated", LEFT.key: "left_aerated"}
"""Name of the segment without dense lung, by the name of the same segment with it.

Only masks that separate dense from aerated lung, such as those of the preset ``anatomical``, have both segments.
"""


@dataclass(frozen=True)
class Comparison:
    """A segment of a case and the labels of the reference that it is compared with.

    Attributes
    ----------
    region : str
        Name of the segment, one of `SEGMENTS`.
    reference : tuple of int
        Labels of the imported reference, see `Plan.values`.
    """

    region: str
    reference: tuple[int, ...]

    @property
    def image(self) -> str:
        """Image of the case that holds the segment."""
        return SEGMENTS[self.region][0]

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels that the voxels of the segment have in `image`."""
        return SEGMENTS[self.region][1]


@dataclass(frozen=True)
class Plan:
    """Plan of one import of a reference: the labels to import, and the comparisons with them.

    Attributes
    ----------
    values : dict of int to int
        Label to import by the number of a segment in the reference file. Segments that belong to the same comparisons
        get the same label.
    comparisons : tuple of Comparison
        The comparisons. Empty for an image without names: its voxels must be read before the comparisons are known.
    """

    values: dict[int, int]
    comparisons: tuple[Comparison, ...]


def parse_what(what: str) -> str | tuple[tuple[str, str], ...]:
    """Return ``"lungs"``, ``"tissues"``, or pairs of a segment of the store and a segment of the reference.

    Raises
    ------
    UsageError
        If the text is neither of the words nor a list of such pairs.
    """
    if what in PRESETS:
        return what
    pairs = [tuple(word.strip() for word in part.split("=")) for part in what.split(",")]
    if not all(len(pair) == 2 and pair[0] in SEGMENTS and _is_segment(pair[1]) for pair in pairs):
        raise UsageError(
            f"what={mark_untrusted(what)} is not understood: give 'lungs', 'tissues', or pairs such as "
            f"'right=1,left=2' of a segment of the store ({', '.join(SEGMENTS)}) and a label or a known "
            "name of the reference"
        )
    return tuple((pair[0], pair[1]) for pair in pairs)


def normalize_what(what: str) -> str:
    """Return the text `what` with each name of a reference segment replaced by our name of its region."""
    chosen = parse_what(what)
    if isinstance(chosen, str):
        return chosen
    return ",".join(f"{row}={word if word.isdigit() else region_of_name(word) or word}" for row, word in chosen)


def images_of(what: str) -> set[str]:
    """Return the names of the images of a case that are compared; `what` is described in `parse_what`."""
    chosen = parse_what(what)
    if isinstance(chosen, str):
        return {"side" if chosen == "lungs" else "tissue"}
    return {SEGMENTS[row][0] for row, _ in _with_both({row: [] for row, _ in chosen}).items()}


def plans_for(what: str, segments: Sequence[Segment], *, may_overlap: bool = False) -> tuple[Plan, ...]:
    """Return the plans by which a mask file with these segments is compared, one import per plan.

    Parameters
    ----------
    what : str
        See `parse_what`.
    segments : sequence of Segment
        Segments that the file names; none for an image without names.
    may_overlap : bool
        True if a voxel may belong to several segments. An import gives a voxel one label, so each comparison then has
        a separate import.

    Raises
    ------
    SourceError
        If the file names none of the segments, or not all of the pairs.
    """
    chosen = parse_what(what)
    if not segments:
        # An image without names: its labels are imported as they are.
        values = {n: n for n in range(1, _HIGHEST_LABEL + 1)}
        return (Plan(values, () if isinstance(chosen, str) else _numbered(chosen)),)
    groups = _groups(chosen, segments)
    if not groups:
        example = "lesion=1" if chosen == "tissues" else "right=1,left=2"
        raise SourceError(
            f'the reference names no known {chosen}, but has {_listed(segments)}: give pairs such as `what="{example}"`'
        )
    plan = _plan_of(groups)
    if may_overlap or max(plan.values.values()) > _HIGHEST_LABEL:
        return tuple(_plan_of({row: numbers}) for row, numbers in groups.items())
    return (plan,)


def comparisons_of_labels(what: str, labels: Iterable[int]) -> tuple[Comparison, ...]:
    """Return the comparisons with a reference image whose labels have no names, by the labels of its voxels.

    A single label counts as both lungs. The labels 1 and 2 count as right and left lung, as lungmask writes them.

    Raises
    ------
    SourceError
        If the labels are others, or tissues are compared: the user must say what the labels mean.
    """
    present = sorted(labels)
    if what == "lungs" and len(present) == 1:
        return _comparisons({LUNGS_ROW: present})
    if what == "lungs" and present == [1, 2]:
        return _comparisons({LUNGS_ROW: present, "right": [1], "left": [2]})
    listed = ", ".join(map(str, present[:5])) + (" and more" if len(present) > 5 else "")
    example = "right=1,left=2" if what == "lungs" else "ggo=1,consolidation=2"
    raise SourceError(f'the reference does not name its labels ({listed}): give them as in `what="{example}"`')


def with_aerated(case: Case, comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return comparisons, and add for each one of lungs a comparison of the aerated lung alone.

    Nothing is added if the mask of the case does not separate dense from aerated lung.
    """
    if case.region_counts is None:
        return tuple(comparisons)
    named = {comparison.region for comparison in comparisons}
    return *comparisons, *(
        Comparison(AERATED[comparison.region], comparison.reference)
        for comparison in comparisons
        if comparison.region in AERATED and AERATED[comparison.region] not in named
    )


def check_segments(case: Case, comparisons: Sequence[Comparison]) -> None:
    """Raise an error unless a case has all segments that are compared.

    Raises
    ------
    StoreError
        If the mask, right and left lung, dense lung or labels are compared and the case lacks them.
    """
    images = {comparison.image for comparison in comparisons}
    reason = None
    if MASK not in case.stages:
        reason = "no lung mask"
    elif "side" in images and not case.geometry.orientation_known:
        raise StoreError(
            f"case {case.name} has no right and left, because the orientation of its scan is unknown: give "
            '`what="mask=1"`',
            case=case.name,
        )
    elif "side" in images and not regions.is_valid(case):
        reason = "no right and left lung"
    elif "region" in images and case.region_counts is None:
        raise StoreError(
            f"the mask of case {case.name} does not separate dense from aerated lung: make it with "
            '`preset="anatomical"`',
            case=case.name,
        )
    elif "tissue" in images and LABEL not in case.stages:
        reason = "no tissue labels"
    if reason:
        raise StoreError(f"case {case.name} has {reason}: run `Pipeline.run(sources)` first", case=case.name)


def _is_segment(word: str) -> bool:
    is_label = word.isascii() and word.isdigit() and 1 <= int(word) <= _HIGHEST_LABEL
    return is_label or word in REGIONS or region_of_name(word) is not None


def _plan_of(groups: Mapping[str, Sequence[int]]) -> Plan:
    """Return the plan of comparisons whose reference segments do not overlap.

    Parameters
    ----------
    groups : mapping of str to sequence of int
        For each segment of the store, the numbers of the reference segments that it is compared with.
    """
    rows_of: dict[int, list[str]] = {}
    for row, numbers in groups.items():
        for number in dict.fromkeys(numbers):
            rows_of.setdefault(number, []).append(row)
    labels: dict[tuple[str, ...], int] = {}
    values = {number: labels.setdefault(tuple(rows), len(labels) + 1) for number, rows in rows_of.items()}
    return Plan(values, _comparisons({row: [values[n] for n in numbers] for row, numbers in groups.items()}))


def _numbered(pairs: Sequence[tuple[str, str]]) -> tuple[Comparison, ...]:
    """Return the comparisons of pairs of a segment of the store and a label number of the reference."""
    groups: dict[str, list[int]] = {}
    for row, word in pairs:
        if not word.isdigit():
            raise SourceError('the reference does not name its labels: give numbers as in `what="right=1,left=2"`')
        groups.setdefault(row, []).append(int(word))
    return _comparisons(_with_both(groups))


def _groups(chosen: str | tuple[tuple[str, str], ...], segments: Sequence[Segment]) -> dict[str, list[int]]:
    """Return, for each segment of the store, the numbers of the reference segments that it is compared with.

    A segment of the store without a counterpart in the reference is not in the result. If pairs were given and one of
    them has no counterpart, the result is empty.
    """

    def numbers_of(*names: str) -> list[int]:
        return [segment.number for segment in segments if segment.region in names]

    if isinstance(chosen, tuple):
        groups: dict[str, list[int]] = {}
        for row, word in chosen:
            numbers = [s.number for s in segments if word == str(s.number)] or numbers_of(
                word, region_of_name(word) or word
            )
            groups.setdefault(row, []).extend(numbers)
        for row, numbers in groups.items():
            if not numbers:
                words = [region_of_name(word) or word for given, word in chosen if given == row]
                lacking = " or ".join(words)
                raise SourceError(
                    f"the reference has no segment {lacking}, but has {_listed(segments)}: give one of these"
                )
        return _with_both(groups)
    if chosen == "lungs":
        sides = {side.key: numbers_of(side.key, *_lobes_of(side.key)) for side in LUNGS}
        lung = numbers_of("lung")
        both = [*lung, *sides["right"], *sides["left"]] if lung or all(sides.values()) else []
        groups = {LUNGS_ROW: both, **sides}
    else:
        groups = {tissue.key: numbers_of(tissue.key) for tissue in TISSUES}
        lesion = numbers_of(LESION)
        dense = [n for key in INVOLVED for n in groups[key]]
        # All involved tissues together can be compared only if the reference has ground glass and consolidation.
        groups[LESION] = [*lesion, *dense] if lesion or (groups["ggo"] and groups["consolidation"]) else []
    return {row: numbers for row, numbers in groups.items() if numbers}


def _listed(segments: Sequence[Segment]) -> str:
    """Return numbers and known regions of segments as text, without any name of the file."""
    texts = [f"{segment.number} ({segment.region or 'unknown'})" for segment in segments]
    return first_of(texts, _MAX_LISTED)


def _lobes_of(side: str) -> list[str]:
    return [region for region in sorted(REGIONS) if region.startswith(f"{side}_")]


def _with_both(groups: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return groups, with one added for both lungs together if there are groups for right and left only."""
    if LUNGS_ROW in groups or not {"right", "left"} <= groups.keys():
        return groups
    return {LUNGS_ROW: [*groups["right"], *groups["left"]], **groups}


def _comparisons(groups: Mapping[str, Sequence[int]]) -> tuple[Comparison, ...]:
    return tuple(Comparison(row, tuple(sorted(set(labels)))) for row, labels in groups.items())
