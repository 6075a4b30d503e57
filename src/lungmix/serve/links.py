"""Commands and addresses that open the cases of a served store in viewers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from urllib.parse import quote

from lungmix.serve.files import NAME
from lungmix.store import Case, Cohort
from lungmix.store.schema import HARMONISED, LABEL_MAPS
from lungmix.tissue import segments_of

_NEUROGLANCER = "https://neuroglancer-demo.appspot.com/#!"
_VIZARR = "https://hms-dbmi.github.io/vizarr/?source="
_VALIDATOR = "https://ome.github.io/ome-ngff-validator/?source="
_WINDOW = (-1350, 150)


@dataclass(frozen=True)
class CaseLinks:
    """Addresses and commands that open a case in viewers.

    Attributes
    ----------
    case : str
        Name of the case.
    image : str
        Address of the OME-Zarr image.
    napari : str
        Command that opens the image in napari.
    neuroglancer, vizarr, validator : str
        Addresses of web viewers that open the image.
    """

    case: str
    image: str
    napari: str
    neuroglancer: str
    vizarr: str
    validator: str

    def to_dict(self) -> dict[str, str]:
        """Return a JSON-ready dictionary."""
        return asdict(self)


def links_of(cohort: Cohort, address: str) -> list[CaseLinks]:
    """Return the links of every converted case.

    Parameters
    ----------
    cohort : Cohort
        Store that is served.
    address : str
        Address of the server, such as ``http://127.0.0.1:8642``.
    """
    return [_links(case, address, quote(name)) for name, case in cohort.items() if case.is_started("ct")]


def neuroglancer_state(case: Case, image: str) -> dict[str, object]:
    """Return the state with which neuroglancer shows a case: CT in the lung window, label maps in tissue colours."""
    low, high = _WINDOW
    images = {"ct": f"zarr3://{image}/"}
    if case.is_started(HARMONISED):
        images[HARMONISED] = f"zarr3://{image}/{HARMONISED}/"
    layers: list[dict[str, object]] = [
        {
            "type": "image",
            "name": name,
            "source": source,
            "shaderControls": {"normalized": {"range": [low, high], "window": [low, high]}},
            **({} if name == "ct" else {"visible": False}),
        }
        for name, source in images.items()
    ]
    for name in LABEL_MAPS:
        if case.is_started(name):
            segments = segments_of(name)
            layers.append(
                {
                    "type": "segmentation",
                    "name": name,
                    "source": f"zarr3://{image}/labels/{name}/",
                    "segments": [str(segment.label) for segment in segments],
                    "segmentColors": {str(segment.label): segment.color for segment in segments},
                    "visible": name == "tissue",
                }
            )
    return {"layers": layers, "layout": "4panel"}


def _links(case: Case, address: str, name: str) -> CaseLinks:
    image = f"{address}/{name}"
    state = json.dumps(neuroglancer_state(case, image), separators=(",", ":"))
    return CaseLinks(
        case=case.name,
        image=image,
        napari=f"napari --plugin napari-ome-zarr {address}/{NAME}/{name}",
        neuroglancer=_NEUROGLANCER + quote(state),
        vizarr=_VIZARR + image,
        validator=_VALIDATOR + image,
    )
