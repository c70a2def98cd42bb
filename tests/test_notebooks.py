"""The notebooks run, are stored as they ran, and so do the scripts that users copy."""

import json
import math
import re
import warnings
from pathlib import Path

import pytest

from docs.gallery import gallery, pictures
from inference import swap_priors, train_svi
from pyroqmri.datasets import fetch
from pyroqmri.errors import InputError
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import CLASSES
from tests.test_prose import refused, without_code

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
QUICK = ["own_signal"]  # with short trainings in every run of the tests, one for all

named = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def executed(path: Path, folder: Path, monkeypatch, steps: str = r"\1\2") -> None:
    """Run a notebook's cells in this process; its last cell holds it to what its text says."""
    matplotlib = pytest.importorskip("matplotlib")
    pytest.importorskip("IPython", reason="notebooks need the extra: pip install 'pyroqmri[notebooks]'")
    for name in ("b1k_b2k", "multishell_b6k"):
        if f'fetch("{name}"' in "".join(map(source, cells(path))):
            try:
                fetch(name, progress=False)
            except InputError as error:
                pytest.skip(f"needs the scan of the demo: {error}")
    monkeypatch.setattr("IPython.display.display", lambda *what: None)
    monkeypatch.chdir(folder)
    matplotlib.use("Agg")
    names, signals = {"__name__": "__main__"}, dict(SIGNALS)
    with matplotlib.rc_context({"figure.max_open_warning": 0}), warnings.catch_warnings():
        for number, cell in enumerate(cells(path)):
            code = re.sub(r'("training.steps": )(\d+)', steps, source(cell))
            exec(compile(code, f"{path.name}, code cell {number}", "exec"), names)
    matplotlib.pyplot.close("all")
    for name in set(SIGNALS) - set(signals):  # registered by the notebook
        del SIGNALS[name]


@pytest.mark.slow
@named
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    executed(path, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", QUICK)
def test_a_notebook_runs_with_short_trainings(name, tmp_path, monkeypatch):
    executed(REPOSITORY / "notebooks" / f"{name}.ipynb", tmp_path, monkeypatch, steps=r"\g<1>12")


@named
def test_a_notebook_is_kept_as_it_ran(path):
    code = cells(path)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"] == []
    assert pictures(path.stem)
    assert path.stat().st_size < 300_000, "shrink its pictures: a palette of colours is enough"
    # nothing of the machine that ran it, and a last cell that can fail
    assert re.findall(r"/(?:home|root|tmp|work|Users)/", path.read_text()) == []
    assert "assert " in source(code[-1])
    first = source(cells(path, "markdown")[0])
    assert first.startswith("# ")


@named
def test_a_notebook_is_on_the_site(path):
    assert f"notebooks/{path.stem}\n" in (REPOSITORY / "docs" / "index.md").read_text()


@named
def test_a_notebook_is_in_plain_terms(path):
    for cell in cells(path, "markdown"):
        assert [refused(line) for _, line in without_code(source(cell)) if refused(line)] == [], source(cell)


def test_the_gallery_shows_the_pictures_of_the_notebooks():
    page = (REPOSITORY / "docs" / "gallery.md").read_text()
    for path, content in gallery().items():
        assert f"](figures/{path.name})" in page
        assert path.read_bytes() == content, "run: python -m docs.gallery"


@pytest.mark.slow
def test_both_loops_end_at_the_same_place():
    found = train_svi.main(n_voxels=300, steps=150)
    pyro, ours = found.values()
    assert pyro["elbo before"] == pytest.approx(ours["elbo before"], abs=1e-3)
    # two noisy optimisers of one objective, with learning rates of their own
    assert min(pyro["elbo"], ours["elbo"]) > ours["elbo before"]
    assert pyro["elbo"] == pytest.approx(ours["elbo"], abs=1.0)


@pytest.mark.slow
def test_priors_are_swapped_and_compared():
    y, acq, truth, tissue = swap_priors.simulated(400, snr=20, seed=0)
    recipes = ("maximum_likelihood", "hierarchical", "with_free_water")
    found = swap_priors.compare(y, acq, recipes, steps=60, truth=(truth, tissue))
    assert math.isnan(found["maximum_likelihood"]["elbo"])
    assert math.isfinite(found["hierarchical"]["elbo"])
    # knowing the fluid beforehand is worth more than any training: .6 against .1, whatever the seed
    key = f"{CLASSES[2]}: rmse D"
    assert found["with_free_water"][key] < 0.5 * found["maximum_likelihood"][key]
    assert swap_priors.table(found).count("\n") == 1 + len(recipes)
