"""Every notebook runs with a scheduler in another process, and those with stored outputs hold no machine's paths."""

import base64
import os
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

import lungmix
from lungmix.parameters import MaskParameters
from lungmix.phantom import Cohort, write_cohort
from lungmix.pipeline import Pipeline
from support.clusters import running_cluster

pytestmark = pytest.mark.slow

WITH_OUTPUTS = {"from_dicom_to_figure"}
"""Notebooks that readers can follow without running them."""

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    write_cohort(folder / "scans", Cohort(3, 5, (90, 96, 96), (3.6, 3.6, 3.3)), "mixed")
    with running_cluster(folder) as (address, _):
        with lungmix.connect(address) as client:
            cohort = lungmix.open_cohort(folder / "cohort.zarr", "a")
            sources = [p for p in (folder / "scans").iterdir() if p.suffix != ".csv"]
            report = Pipeline(client, cohort).run(sources, mask=MaskParameters("physical"))
        assert not report.failed
        yield {"LUNGMIX_SCHEDULER": address, "LUNGMIX_STORE": str(folder / "cohort.zarr")}


def texts_of(notebook) -> list[str]:
    """Outputs as text, of cells in their order."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output["data"].get("text/plain", "") for cell in cells for output in cell.outputs if "data" in output]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_pictures(path, surroundings, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    stored = texts_of(notebook)
    runner = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    runner.execute(env={**os.environ, **surroundings})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    if path.stem in WITH_OUTPUTS:
        assert texts_of(notebook) == stored
    pictures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    shown = "".join(o["data"]["text/html"] for o in outputs if "text/html" in o.get("data", {}))
    assert "<caption>Co" in shown or "<caption>Ca" in shown
    widgets = [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert len(widgets) == (path.stem == "volumes_3d")
    for number, picture in enumerate(pictures):
        (tmp_path / f"{path.stem}-{number}.png").write_bytes(base64.b64decode(picture))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_complete_and_small_and_contain_no_path(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    if path.stem in WITH_OUTPUTS:
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        assert {output.output_type for output in outputs} == {"execute_result", "display_data"}
        texts = "\n".join(str(text) for output in outputs for kind, text in output.data.items() if kind != "image/png")
        assert not re.search(r"(?<![<\w.])/\w|\w:\\\\|://", texts)
        assert path.stat().st_size < 150_000
    else:
        assert not outputs
        assert not any(cell.execution_count for cell in cells)
