"""Tables of computed scores on narrow terminals."""

from io import StringIO
from math import nan

import pytest
from rich.console import Console

from lungmix.analysis.severity import DENSE_TISSUES, SCORES, SeverityStudy
from lungmix.cli.show_severity import show_severity

KEYS = [f"{score}{ending}" for ending in ("", DENSE_TISSUES) for score in SCORES]
SUMMARY = {"scans": 3, "median": 12.0, "lower_quartile": 9.0, "upper_quartile": 15.0, "mean": 12.3}
AGREEMENT = {
    "reader": "", "scans": 3, "icc": 0.7, "icc_low": 0.1, "icc_high": 0.9, "correlation": 0.82, "correlation_low": 0.3,
    "correlation_high": 0.97, "difference": 0.2, "difference_low": -0.1, "difference_high": 0.6, "lower_limit": -0.7,
    "upper_limit": 1.2,
}  # fmt: skip


def study():
    row = {key: value for k in KEYS for key, value in ((k, 18), (f"{k}_low", 12), (f"{k}_high", 24))}
    return SeverityStudy(
        [{"case": f"case-00{i}", **row} for i in range(3)],
        [{"score": key, **SUMMARY, "mean_low": 10.4, "mean_high": 14.0} for key in KEYS],
        [{"score": key, **AGREEMENT} for key in SCORES],
        "paper", 3, 50, 95.0, 0.0, [],
    )  # fmt: skip


@pytest.mark.parametrize("width", [80, 66])
def test_no_cell_is_cut_or_folded(width):
    text = StringIO()
    show_severity(Console(file=text, width=width), study(), [])
    lines = text.getvalue().splitlines()
    cases = [line.split() for line in lines if line.strip().startswith("case-00")]
    assert len(cases) == 6
    assert all(" ".join(cells[1:]) == " ".join(["18 (12 to 24)"] * 3) for cells in cases)
    assert text.getvalue().count("0.70 (0.10 to 0.90)") == 3
    assert text.getvalue().count("-0.7 to +1.2") == 3
    assert text.getvalue().count("12.3 (10.4 to 14.0)") == 6
    assert max(map(len, lines)) <= width


def test_scores_that_no_case_has_are_left_out():
    result = study()
    for row in result.summary:
        row["scans"] = 0 if "25" in row["score"] else 3
        row["mean_low"] = nan
    text = StringIO()
    show_severity(Console(file=text, width=80), result, [])
    assert "25 points" not in text.getvalue().split("Agreement")[0]


def test_agreement_with_several_readers_names_each():
    result, text = study(), StringIO()
    result.agreement[:] = [{"score": "score", **AGREEMENT, "reader": name} for name in ("anna", "ben")]
    show_severity(Console(file=text, width=80), result, [])
    assert text.getvalue().count("S, anna") == text.getvalue().count("S, ben") == 2
