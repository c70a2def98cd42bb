"""CONTRIBUTING's recipe for a new prior: one file, its name in the registry, and everything works."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import pyroqmri as pq
from pyroqmri.priors import PRIORS
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import clusters, simulate
from tests.contracts.test_priors import LARGEST, model_of, traced, voxels_of

CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
ACQ = pq.Acquisition(bval=[0.0] * 4 + [1.0] * 8 + [2.0] * 8 + [3.0] * 8)


@pytest.fixture
def student(tmp_path, monkeypatch):
    """The prior that CONTRIBUTING shows, written as the file that it names, and registered."""
    shown = re.search(r"`pyroqmri/priors/(\w+)\.py`.*?```python\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
    assert shown is not None
    name, code = shown.groups()
    assert name not in PRIORS
    (tmp_path / f"{name}.py").write_text(code)
    spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(PRIORS, name, module.Student)
    return name


def test_it_is_trained_mapped_saved_and_compared(student, tmp_path):
    truth, _ = clusters(150, seed=0, classes=("white matter", "grey matter"))
    y = simulate(MSDKI, ACQ, truth, snr=25, seed=1)
    settings = {"prior.kind": student, "prior.freedom": 6.0, "training.steps": 40}
    fit = pq.fit(y, ACQ, signal="msdki", recipe="hierarchical", settings=settings)
    assert float(fit.model.prior.freedom) == 6.0
    error = (fit.posterior(y).mean["D"] - truth["D"]).abs().median()
    assert float(error) < 0.1  # a third of the clusters' spread
    fit.save(tmp_path / "fit")
    again = pq.load_fit(tmp_path / "fit")
    torch.testing.assert_close(again.posterior(y).mean["D"], fit.posterior(y).mean["D"])
    other = pq.fit(y, ACQ, signal="msdki", recipe="hierarchical", settings={"training.steps": 40})
    evidence = {row.name: row.total for row in pq.compare({"student": fit, "normal": other}, y).ranking("evidence")[0]}
    # two populations of one data set that differ in their tails: nats per voxel, not tens of nats
    assert abs(evidence["student"] - evidence["normal"]) / len(y) < 1


def test_its_density_is_stated_once(student):
    model = model_of(PRIORS[student])
    voxels = voxels_of(model)
    z = torch.randn(len(voxels), model.n_latents)
    with torch.no_grad():
        assert float((model.log_joint(z, voxels) - traced(model, z, voxels)).abs().max()) <= LARGEST
