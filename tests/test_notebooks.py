"""The notebooks run, and so do the scripts that users copy."""

import math
from pathlib import Path

import pytest

from inference import swap_priors, train_svi
from pyroqmri.simulate import CLASSES

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    pytest.importorskip("ipykernel", reason="notebooks need the extra: pip install 'pyroqmri[notebooks]'")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    # raises with the cell and its traceback; the last cell holds the notebook to what its text says
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_both_loops_end_at_the_same_place():
    found = train_svi.main(n_voxels=300, steps=150)
    pyro, ours = found.values()
    assert pyro["elbo before"] == pytest.approx(ours["elbo before"], abs=1e-3)
    # two noisy optimisers of one objective, with learning rates of their own
    assert min(pyro["elbo"], ours["elbo"]) > ours["elbo before"]
    assert pyro["elbo"] == pytest.approx(ours["elbo"], abs=1.0)


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
