"""Notebooks on pages: text, code and stored outputs of each cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Notebook(SphinxDirective):
    """Cells of a notebook in place of the directive; its title is that of the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """See docutils."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        return [node for cell in cells for node in self._nodes_of(cell)]

    def _nodes_of(self, cell: dict[str, Any]) -> Iterator[nodes.Node]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            yield nodes.literal_block(source, source, language="python")
            for output in cell["outputs"]:
                yield output_node({kind: "".join(lines) for kind, lines in output["data"].items()})
            return
        for block in source.split("\n\n"):
            level, _, title = block.partition(" ")
            if level == "##":
                yield nodes.rubric(title, title)
            elif level != "#":
                yield from self.parse_text_to_nodes(block)


def output_node(data: dict[str, str]) -> nodes.Node:
    """Return the node of an output in the first format of image, HTML and text."""
    if "image/png" in data:
        source = f"data:image/png;base64,{data['image/png']}"
        return nodes.raw(
            "", f'<img alt="Figure of the cell above" style="max-width:100%" src="{source}">', format="html"
        )
    if "text/html" in data:
        return nodes.raw("", f'<div class="notebook-output">{data["text/html"]}</div>', format="html")
    return nodes.literal_block(data["text/plain"], data["text/plain"], language="text")


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("notebook", Notebook)
    return {"parallel_read_safe": True}
