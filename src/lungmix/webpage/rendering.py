"""Pages of the report: templates with the styles and scripts of this package in the page itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lungmix._version import __version__

_STATIC = Path(__file__).parent / "static"


def render(template: str, scripts: Sequence[str], **values: Any) -> bytes:
    """Return an HTML page.

    Parameters
    ----------
    template : str
        Name of a template in ``templates/``.
    scripts : sequence of str
        Names of scripts in ``static/``, without the suffix, in the order in which the page runs them.
    **values : Any
        Values of the template. Text in them is escaped.

    Returns
    -------
    bytes
        The page, in UTF-8.
    """
    environment = Environment(
        loader=PackageLoader("lungmix.webpage"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["zip"] = zip
    page = environment.get_template(template).render(
        version=__version__,
        # Only files of this package are included without escaping.
        style=Markup(_static("page.css")),
        script=Markup("\n".join(_static(f"{name}.js") for name in scripts)),
        **values,
    )
    return page.encode()


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")
