"""Start page of a served store: its cases, with links that open them in viewers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import PurePosixPath

from lungmix._version import __version__
from lungmix.serve.links import CaseLinks, links_of
from lungmix.store import Cohort

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #8885; vertical-align: top; }
code { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
"""


def index_page(cohort: Cohort, address: str, case: str | None = None) -> str:
    """Return HTML that lists cases with their links.

    Parameters
    ----------
    cohort : Cohort
        Store that is served.
    address : str
        Address of the server, such as ``http://127.0.0.1:8642``.
    case : str, optional
        The only case to list; all by default.

    Raises
    ------
    KeyError
        If the store holds no such case.
    """
    if case is not None and not cohort[case].is_started("ct"):
        raise KeyError(case)
    links = [entry for entry in links_of(cohort, address) if case in (None, entry.case)]
    name = PurePosixPath(cohort.url.rstrip("/")).name or "cohort"
    title = f"{name}: {case}" if case else f"{name}: {len(links)} {'scan' if len(links) == 1 else 'scans'}"
    up = f'<p><a href="{escape(address)}/">All scans</a></p>' if case else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{up}
<p>Served read-only by lungmix {__version__}. Viewers on the web run in this browser and load the images from this
machine; nothing is uploaded. Tables and figures are in the HTML report: <code>lungmix report STORE page</code>.</p>
{_table(links)}
</body>
</html>
"""


def _table(links: Sequence[CaseLinks]) -> str:
    if not links:
        return "<p>The store holds no scan yet: <code>lungmix run STORE SOURCE</code>.</p>"
    rows = "\n".join(map(_row, links))
    header = "<tr><th>Case</th><th>In the browser</th><th>In napari</th><th>OME-Zarr address</th></tr>"
    return f'<div class="scroll"><table><thead>{header}</thead><tbody>\n{rows}\n</tbody></table></div>'


def _row(links: CaseLinks) -> str:
    viewers = ", ".join(
        f'<a href="{escape(url)}">{name}</a>'
        for name, url in (
            ("neuroglancer", links.neuroglancer),
            ("vizarr", links.vizarr),
            ("validator", links.validator),
        )
    )
    return (
        f"<tr><th>{escape(links.case)}</th><td>{viewers}</td><td><code>{escape(links.napari)}</code></td>"
        f"<td><code>{escape(links.image)}</code></td></tr>"
    )
