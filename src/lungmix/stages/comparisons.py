"""Segments of a store, and the segments of a mask file that they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lungmix.errors import SourceError, StoreError, UsageError, mark_untrusted
from lungmix.formats.masks import REGIONS, Segment, region_of_name
from lungmix.stages import regions
from lungmix.store import Case
from lungmix.store.schema import LABEL, MASK
from lungmix.tissue import DENSE, INVOLVED, LEFT, LUNGS, RIGHT, SIDES, TISSUES

LUNGS_ROW, MASK_ROW, LESION = "lungs", "mask", "lesion"
"""Both lungs together; the whole mask with airway and elsewhere; all tissues that count as involved."""

PRESETS = ("lungs", "tissues")
_HIGHEST_LABEL = 255

SEGMENTS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    LUNGS_ROW: ("side", tuple(lung.label for lung in LUNGS)),
    MASK_ROW: ("lung", (1,)),
    **{side.key: ("side", (side.label,)) for side in SIDES},
    **{tissue.key: ("tissue", (tissue.label,)) for tissue in TISSUES},
    LESION: ("tissue", tuple(tissue.label for tissue in TISSUES if tissue.key in INVOLVED)),
    "lungs_aerated": ("region", tuple(part.label for part in DENSE[:2])),
    **{part.key: ("region", (part.label,)) for part in DENSE},
}
"""Image and labels of each segment of a store that can be compared."""


AERATED = {LUNGS_ROW: "lungs_aerated", RIGHT.key: "right_aerated", LEFT.key: "left_aerated"}
"""Segments without dense lung, by the segment with it; masks of the preset ``anatomical`` have both."""


@dataclass(frozen=True)
class Comparison:
    """A segment of a case and the labels of the reference that it is compared with.

    Attributes
    ----------
    region : str
        Name of the segment, one of `SEGMENTS`.
    reference : tuple of int
        Labels of the reference, as they are imported.
    """

    region: str
    reference: tuple[int, ...]

    @property
    def image(self) -> str:
        """Image of the case that holds the segment."""
        return SEGMENTS[self.region][0]

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels of the segment in its image."""
        return SEGMENTS[self.region][1]


@dataclass(frozen=True)
class Plan:
    """Labels to import from a reference at once, and the comparisons with them.

    Attributes
    ----------
    values : dict of int to int
        Label to import by the number of a segment in the file; segments of the same rows share one.
    comparisons : tuple of Comparison
        The comparisons; empty where they follow from the labels that an image without names holds.
    """

    values: dict[int, int]
    comparisons: tuple[Comparison, ...]


def parse_what(what: str) -> str | tuple[tuple[str, str], ...]:
    """Return ``"lungs"``, ``"tissues"``, or pairs of a segment of the store and a segment of the reference.

    Raises
    ------
    UsageError
        If the text says something else.
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
    """Return the text of `parse_what` in known words alone."""
    chosen = parse_what(what)
    if isinstance(chosen, str):
        return chosen
    return ",".join(f"{row}={word if word.isdigit() else region_of_name(word) or word}" for row, word in chosen)


def images_of(what: str) -> set[str]:
    """Return the images of a case that are compared; see `parse_what`."""
    chosen = parse_what(what)
    if isinstance(chosen, str):
        return {"side" if chosen == "lungs" else "tissue"}
    return {SEGMENTS[row][0] for row, _ in _with_both({row: [] for row, _ in chosen}).items()}


def plans_for(what: str, segments: Sequence[Segment], *, may_overlap: bool = False) -> tuple[Plan, ...]:
    """Return how a mask file with these segments is compared, as plans to follow one after the other.

    Parameters
    ----------
    what : str
        See `parse_what`.
    segments : sequence of Segment
        Segments that the file names; none for an image without names.
    may_overlap : bool
        True where a voxel may belong to several segments. It is imported with one label, so each row is imported alone.

    Raises
    ------
    SourceError
        If the file names none of the segments.
    """
    chosen = parse_what(what)
    if not segments:
        # Labels that nothing names are imported as they are.
        values = {n: n for n in range(1, _HIGHEST_LABEL + 1)}
        return (Plan(values, () if isinstance(chosen, str) else _numbered(chosen)),)
    groups = _groups(chosen, segments)
    if not groups:
        example = "lesion=1" if chosen == "tissues" else "right=1,left=2"
        raise SourceError(
            f"the reference names no known {'segments' if isinstance(chosen, tuple) else chosen}: give pairs "
            f'such as `what="{example}"`'
        )
    plan = _plan_of(groups)
    if may_overlap or max(plan.values.values()) > _HIGHEST_LABEL:
        return tuple(_plan_of({row: numbers}) for row, numbers in groups.items())
    return (plan,)


def comparisons_of_labels(what: str, labels: Iterable[int]) -> tuple[Comparison, ...]:
    """Return the comparisons with an image that holds some labels and does not name them.

    One label is both lungs; 1 and 2 are right and left, as lungmask writes them.

    Raises
    ------
    SourceError
        If the labels do not tell what they are.
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
    """Return comparisons, and those of the lungs again without dense lung where the mask of the case tells it."""
    if case.region_counts is None:
        return tuple(comparisons)
    named = {comparison.region for comparison in comparisons}
    return *comparisons, *(
        Comparison(AERATED[comparison.region], comparison.reference)
        for comparison in comparisons
        if comparison.region in AERATED and AERATED[comparison.region] not in named
    )


def check_segments(case: Case, comparisons: Sequence[Comparison]) -> None:
    """Check that a case has the segments that are compared.

    Raises
    ------
    StoreError
        If its mask, right and left, or its labels are missing.
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
    """Return the plan of rows whose segments do not overlap, from the numbers of the segments by row."""
    rows_of: dict[int, list[str]] = {}
    for row, numbers in groups.items():
        for number in dict.fromkeys(numbers):
            rows_of.setdefault(number, []).append(row)
    labels: dict[tuple[str, ...], int] = {}
    values = {number: labels.setdefault(tuple(rows), len(labels) + 1) for number, rows in rows_of.items()}
    return Plan(values, _comparisons({row: [values[n] for n in numbers] for row, numbers in groups.items()}))


def _numbered(pairs: Sequence[tuple[str, str]]) -> tuple[Comparison, ...]:
    """Return the comparisons with labels that were given as numbers."""
    groups: dict[str, list[int]] = {}
    for row, word in pairs:
        if not word.isdigit():
            raise SourceError('the reference does not name its labels: give numbers as in `what="right=1,left=2"`')
        groups.setdefault(row, []).append(int(word))
    return _comparisons(_with_both(groups))


def _groups(chosen: str | tuple[tuple[str, str], ...], segments: Sequence[Segment]) -> dict[str, list[int]]:
    """Return the numbers of the segments by row; rows without any are missing."""

    def numbers_of(*names: str) -> list[int]:
        return [segment.number for segment in segments if segment.region in names]

    if isinstance(chosen, tuple):
        groups: dict[str, list[int]] = {}
        for row, word in chosen:
            numbers = [s.number for s in segments if word == str(s.number)] or numbers_of(
                word, region_of_name(word) or word
            )
            groups.setdefault(row, []).extend(numbers)
        return {} if not all(groups.values()) else _with_both(groups)
    if chosen == "lungs":
        sides = {side.key: numbers_of(side.key, *_lobes_of(side.key)) for side in LUNGS}
        lung = numbers_of("lung")
        both = [*lung, *sides["right"], *sides["left"]] if lung or all(sides.values()) else []
        groups = {LUNGS_ROW: both, **sides}
    else:
        groups = {tissue.key: numbers_of(tissue.key) for tissue in TISSUES}
        lesion = numbers_of(LESION)
        dense = [n for key in INVOLVED for n in groups[key]]
        # Part of the involved tissues is no reference for all of them.
        groups[LESION] = [*lesion, *dense] if lesion or (groups["ggo"] and groups["consolidation"]) else []
    return {row: numbers for row, numbers in groups.items() if numbers}


def _lobes_of(side: str) -> list[str]:
    return [region for region in sorted(REGIONS) if region.startswith(f"{side}_")]


def _with_both(groups: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return groups with a row for both lungs where right and left are given and both are not."""
    if LUNGS_ROW in groups or not {"right", "left"} <= groups.keys():
        return groups
    return {LUNGS_ROW: [*groups["right"], *groups["left"]], **groups}


def _comparisons(groups: Mapping[str, Sequence[int]]) -> tuple[Comparison, ...]:
    return tuple(Comparison(row, tuple(sorted(set(labels)))) for row, labels in groups.items())
