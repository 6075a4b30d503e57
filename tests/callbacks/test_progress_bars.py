"""Progress bars of a run in a notebook or script: the amounts that they count, and the messages that they print."""

import io

from rich.console import Console

import lungmix
from lungmix.errors import mark_path


def test_bars_print_warnings_and_failures_without_names_of_files():
    stream = io.StringIO()
    bars = lungmix.ProgressBars(Console(file=stream, force_terminal=True, width=120, color_system=None))
    bars.on_begin("convert", ["case-001", "case-002"], {"case-001": 3_000_000, "case-002": 1_000_000})
    bars.on_progress("case-001", "convert", 1, 4)
    bars.on_case_end("case-001", None)
    bars.on_case_end("case-002", f"{mark_path('Doe^John.nrrd')} is cut short")
    bars.on_warning(f"{mark_path('Doe^John.nrrd')} has gaps")
    bars.on_end()
    text = stream.getvalue()
    assert "convert, all cases" in text
    assert "2/2 cases, 4.0 MB of 4.0 MB" in text
    assert "case-002: failed:" in text
    assert "has gaps" in text
    assert "Doe" not in text


def test_bars_go_to_the_standard_error_stream_of_a_script(capsys):
    bars = lungmix.ProgressBars()
    bars.on_begin("mask", ["case-001"])
    bars.on_case_end("case-001", "no lung found")
    bars.on_end()
    printed = capsys.readouterr()
    assert not printed.out
    assert "case-001: failed: no lung found" in printed.err
