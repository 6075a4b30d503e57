"""Print address and links of a served store on the terminal, or return them as a JSON object for programs."""

from __future__ import annotations

import json

from rich.console import Console

from lungmix.serve import Served


def show_served(console: Console, served: Served) -> None:
    """Print the address, the links of the first case except the long ones, and the names of the other cases."""

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    line(f"serving at {served.address} (read only); Ctrl-C stops it")
    line("open that address in a browser: it lists all cases with links for neuroglancer, vizarr and napari")
    for links in served.links[:1]:
        line(f"\n{links.case}: {links.image}")
        line(f"  napari        {links.napari}")
        line(f"  vizarr        {links.vizarr}")
        line(f"  validator     {links.validator}")
    if len(served.links) > 1:
        line(f"\nthe same for {', '.join(links.case for links in served.links[1:])}; --json prints all")


def served_json(served: Served) -> str:
    """Return all links as one JSON object on one line."""
    return json.dumps({"address": served.address, "cases": [links.to_dict() for links in served.links]})
