"""Links from the first mention of a term on each page to the glossary, without marks in the text."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from glossary_terms import split_terms
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

_PLAIN = (nodes.paragraph, nodes.emphasis, nodes.strong)
_OPAQUE = (nodes.reference, addnodes.pending_xref, nodes.literal, nodes.title, nodes.term, addnodes.desc, nodes.rubric)


class LinkTerms(SphinxTransform):
    """Replacement of the first mention of each term in running text by a reference to the glossary."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        """See docutils."""
        if self.env.docname in self.config.glossary_links_exclude or self.env.docname.startswith("commands/"):
            return
        seen = {
            node["reftarget"] for node in self.document.findall(addnodes.pending_xref) if node.get("reftype") == "term"
        }
        for text in list(self.document.findall(nodes.Text)):
            if isinstance(text.parent, _PLAIN) and not self._is_opaque(text):
                self._link(text, seen)

    @staticmethod
    def _is_opaque(text: nodes.Text) -> bool:
        node = text.parent
        while node is not None:
            if isinstance(node, _OPAQUE):
                return True
            node = node.parent
        return False

    def _link(self, text: nodes.Text, seen: set[str]) -> None:
        pieces = split_terms(str(text), seen)
        if not any(term for _, term in pieces):
            return
        parts: list[nodes.Node] = []
        for piece, term in pieces:
            if not term:
                parts.append(nodes.Text(piece))
                continue
            reference = addnodes.pending_xref(
                "", nodes.inline("", piece, classes=["std", "std-term"]), refdomain="std", reftype="term",
                reftarget=term, refexplicit=True, refwarn=True, refdoc=self.env.docname,
            )  # fmt: skip
            parts.append(reference)
        text.parent.replace(text, parts)


def setup(app: Any) -> dict[str, bool]:
    """Register the transform and the pages that it leaves alone."""
    app.add_config_value("glossary_links_exclude", [], "env")
    app.add_transform(LinkTerms)
    return {"parallel_read_safe": True}
