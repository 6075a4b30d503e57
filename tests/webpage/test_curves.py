import numpy as np
import pytest

from lungmix.analysis.bootstrap import bootstrap
from lungmix.analysis.robustness import study
from lungmix.errors import UsageError
from lungmix.parameters import FitParameters
from lungmix.stages.fit import add_counts, fit_counts
from lungmix.webpage.curves import fits_figure, save_figure
from lungmix.webpage.studies import write_bootstrap, write_robustness
from support.generators import counts_of_scans


def is_figure(path):
    head = path.read_bytes()[:300]
    return head.startswith(b"\x89PNG") if path.suffix == ".png" else b"<svg" in head or b"<?xml" in head


@pytest.mark.parametrize("k", [1, 5, 8])
def test_all_fits_are_drawn_for_any_number_of_components(tmp_path, k):
    pooled = add_counts(counts_of_scans(3, 5000))
    figure = fits_figure(fit_counts(pooled, FitParameters(n_components=k)), pooled, -1000)
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == [
        "Fit as published (“paper”)",
        "Converged fit (“converged”)",
        *(["Anchored fit (“anchored”)"] if k == 5 else []),
    ]
    files = save_figure(figure, tmp_path / "new" / "fits.svg")
    assert [file.name for file in files] == ["fits.png", "fits.svg"]
    assert all(map(is_figure, files))


def test_fits_of_no_voxels_but_one_value_are_drawn():
    pooled = np.zeros(65536, np.uint64)
    pooled[32768 - 1000] = 5
    assert fits_figure(fit_counts(pooled, FitParameters(n_components=1)), pooled, -1000).axes


def test_studies_write_a_table_and_both_kinds_of_figure(tmp_path):
    counts = counts_of_scans(4, 5000)
    files = write_robustness(study(counts, FitParameters()), tmp_path)
    files += write_bootstrap(bootstrap(counts, FitParameters(), refits=3), tmp_path)
    assert {file.name for file in files} == {
        f"{study}.{kind}" for study in ("robustness", "bootstrap") for kind in ("csv", "png", "svg")
    }
    assert all(is_figure(file) for file in files if file.suffix != ".csv")
    assert (tmp_path / "robustness.csv").read_text().startswith("size,groups,shared,paper.distance")
    assert "threshold,ggo → consolidation,HU" in (tmp_path / "bootstrap.csv").read_text()


def test_figure_of_another_format_is_rejected(tmp_path):
    pooled = add_counts(counts_of_scans(2, 2000))
    figure = fits_figure(fit_counts(pooled, FitParameters(n_components=1)), pooled, -1000)
    with pytest.raises(UsageError, match=r"\.jpg"):
        save_figure(figure, tmp_path / "fits.jpg")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        save_figure(figure, tmp_path / "file" / "fits.png")
