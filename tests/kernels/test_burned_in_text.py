"""Text in slices is found, and nothing in scans and phantoms is taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from lungmix.formats import find_scans
from lungmix.kernels.burned_in_text import text_lines
from lungmix.phantom import Cohort
from support.labelled import SHAPE, SPACING
from support.series import scans

TEXTS = ("DOE^JANE", "Doe Jane 13.02.1947", "ID 90210")


def chest(seed=0):
    """Return a slice with noise: air, a body, and lungs with vessels."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((256, 256))
    hu = np.full((256, 256), -1000.0)
    hu[((y - 128) / 80) ** 2 + ((x - 128) / 110) ** 2 < 1] = 40
    for centre in (80, 176):
        hu[((y - 128) / 55) ** 2 + ((x - centre) / 35) ** 2 < 1] = -850
    for row, column in rng.integers(0, 256, (300, 2)):
        if hu[row, column] == -850:
            hu[row : row + 4, column : column + 3] = 40
    return np.maximum(hu + rng.normal(0, 20, hu.shape), -1024).astype(np.int16)


def with_text(hu, text, size, place, value, *, soft=False, box=None):
    """Return a slice with text; soft letters have blurred edges, and a box has the HU of its ground."""
    letters = Image.new("L", hu.shape[::-1], 0)
    draw, font, out = ImageDraw.Draw(letters), ImageFont.load_default(size), hu.astype(float)
    draw.fontmode = "L" if soft else "1"
    if box is not None:
        left, top, right, bottom = draw.textbbox(place, text, font=font)
        out[max(int(top) - 3, 0) : int(bottom) + 3, max(int(left) - 3, 0) : int(right) + 3] = box
    draw.text(place, text, fill=255, font=font)
    share = np.asarray(letters) / 255
    return np.rint(out * (1 - share) + value * share).astype(np.int16)


@pytest.mark.parametrize("size", [10, 12, 16, 24, 40])
@pytest.mark.parametrize("place", [(4, 4), (4, 205)])
@pytest.mark.parametrize(
    ("value", "box"), [(3071, None), (1000, None), (-1024, 40), (-1024, 300)], ids=["white", "grey", "box", "light box"]
)
def test_text_in_corners_is_found(size, place, value, box):
    hu = chest()
    for text in TEXTS:
        changed = with_text(hu, text[: 256 // size], size, place, value, box=box)
        assert len(text_lines(changed)), text


def test_line_has_the_box_of_its_text():
    for turn in (lambda hu: hu, lambda hu: hu[::-1], lambda hu: hu[:, ::-1]):
        hu = chest()
        changed = with_text(hu, "ABCDEF", 16, (40, 8), 2000)
        rows, columns = np.nonzero(turn(changed != hu))
        lines = text_lines(np.ascontiguousarray(turn(changed)))
        assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) in set(map(tuple, lines.tolist()))


@pytest.mark.parametrize("size", [14, 16, 24])
def test_text_with_soft_edges_is_found_in_margins(size):
    for text in ("DOE JANE", "Patient 90210"):
        assert len(text_lines(with_text(chest(), text, size, (4, 4), 3071, soft=True))), text


@pytest.mark.parametrize("text", ["DOE", "-", "...."])
def test_fewer_letters_than_four_are_no_line(text):
    assert len(text_lines(with_text(chest(), text, 16, (4, 4), 3071))) == 0


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 70), (70, 2)])
def test_slices_of_any_size_are_read(shape):
    assert text_lines(np.zeros(shape, np.int16)).shape == (0, 4)


def test_slices_without_text_have_none():
    for seed in range(20):
        assert len(text_lines(chest(seed))) == 0


def test_phantoms_have_no_text():
    for patient in Cohort(6, 3, SHAPE, SPACING):
        assert not [index for index, hu in enumerate(patient.phantom.volume()) if len(text_lines(hu))]


def test_real_scans_have_no_text(real_ct):
    for scan in scans(find_scans(real_ct)):
        slices = [hu for slab in scan.slabs(64) for hu in slab]
        assert not [index for index, hu in enumerate(slices) if len(text_lines(hu))], scan
