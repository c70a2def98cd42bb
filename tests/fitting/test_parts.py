"""Parts swapped by object, by registered name and by module, through fit, save and load in another process."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from pyro.distributions import StudentT

import pyroqmri as pq
from pyroqmri.calibration.check import check
from pyroqmri.fitting import parts
from pyroqmri.guides import MapStarted
from pyroqmri.likelihoods import Likelihood, RicianLikelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import PRIORS, Hierarchical
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import clusters, simulate
from tests.helpers import reseal

ACQ = pq.Acquisition(bval=[0.0] * 4 + [1.0] * 8 + [2.0] * 8 + [3.0] * 8)
FEW = {"training.steps": 20, "training.check_every": 10}
# what a stranger writes, a module of his own
OWN = """
import torch
from pyro.distributions import MultivariateStudentT, Normal, TransformedDistribution
from pyro.distributions.transforms import AffineTransform, Spline

from pyroqmri.guides import Guide
from pyroqmri.priors import Hierarchical


class Student(Hierarchical):
    def z_dist(self, population):
        return MultivariateStudentT(torch.tensor(4.0), population.loc[0], population.scale_tril[0])


class Flow(Guide):
    needs_mode = True

    def __init__(self, model, n_measurements):
        super().__init__(model)
        self.spline = Spline(model.n_latents, bound=6.0)

    def z_dist(self, voxels):
        base = Normal(torch.zeros_like(voxels.mode), torch.ones_like(voxels.mode)).to_event(1)
        scale = voxels.scale_tril.diagonal(dim1=-2, dim2=-1)
        return TransformedDistribution(base, [self.spline, AffineTransform(voxels.mode, scale, event_dim=1)])


def factory(n_tissue, n_direction=0):
    return Student(n_tissue, n_direction)


NOT_A_PRIOR = torch.nn.Linear
"""


class Heavy(Likelihood):
    """Noise with outliers, from a density alone."""

    def forward(self, signal, sigma):
        return StudentT(5.0, signal, sigma * self.factor).to_event(1)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The stranger's module, importable in this process until the test ends."""
    (tmp_path / "strangers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("strangers", None)
    import strangers  # type: ignore[import-not-found]

    yield strangers
    sys.modules.pop("strangers", None)


def measured(n: int = 120) -> torch.Tensor:
    truth, _ = clusters(n, seed=0, classes=("white matter", "grey matter"))
    return simulate(MSDKI, ACQ, truth, snr=25, seed=1)


def elsewhere(code: str, folder: Path, path: Path | None = None) -> subprocess.CompletedProcess:
    """Run code in another process that knows nothing of this one."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    search = [str(p) for p in (Path(pq.__file__).parents[1], *(() if path is None else (path,)))]
    environment["PYTHONPATH"] = ":".join(search)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, env=environment, capture_output=True, text=True
    )


LOAD = """
    import pyroqmri as pq, torch, sys
    try:
        fit = pq.load_fit("fit"{})
    except pq.InputError as error:
        sys.exit(f"refused: {{error}}")
    print(float(fit.posterior(torch.load("y.pt")).mean["D"].double().sum()), "strangers" in sys.modules)
"""


def test_classes_given_as_objects_survive_another_process(own, tmp_path):
    y = measured()
    torch.save(y, tmp_path / "y.pt")
    fit = pq.fit(y, ACQ, signal="msdki", recipe="hierarchical", prior=own.Student, guide=own.Flow, settings=FEW)
    assert isinstance(fit.model.prior, own.Student)
    assert isinstance(fit.guide, own.Flow)
    assert fit.recipe.kind("prior") == "strangers:Student"
    fit.save(tmp_path / "fit")
    told = float(fit.posterior(y).mean["D"].double().sum())
    # not named, so not run
    refused = elsewhere(LOAD.format(""), tmp_path, tmp_path)
    assert "is code from outside pyroqmri" in refused.stderr
    assert "load_fit(folder, prior=Student)" in refused.stderr
    trusted = elsewhere(LOAD.format(", trust=True"), tmp_path, tmp_path)
    assert trusted.stdout.split()[1] == "True"
    assert float(trusted.stdout.split()[0]) == pytest.approx(told, rel=1e-5)
    given = pq.load_fit(tmp_path / "fit", prior=own.Student, guide=own.Flow)
    assert float(given.posterior(y).mean["D"].double().sum()) == pytest.approx(told, rel=1e-6)


def test_a_missing_module_is_said(own, tmp_path):
    fit = pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", prior=own.Student, settings=FEW)
    place = tmp_path / "elsewhere"
    fit.save(place / "fit")
    found = elsewhere(LOAD.format(", trust=True"), place)
    assert re.search(r"strangers:Student' cannot be imported .*put it on PYTHONPATH", found.stderr)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr


def test_a_guide_without_a_mixture_answers_everything(own, tmp_path):
    y = measured()
    fit = pq.fit(y, ACQ, signal="msdki", recipe="hierarchical", guide=own.Flow, settings=FEW)
    post = fit.posterior(y)
    interval = post.interval(0.9)["D"]
    assert (interval[:, 0] < post.mean["D"]).all()
    assert (interval[:, 1] > post.mean["D"]).all()
    draws = post.draws(2000, seed=1)["D"]
    # the maps come from 256 draws, these from 2,000: standard errors of 0.06 and 0.05 sd
    assert float(((draws.mean(0) - post.mean["D"]) / post.sd["D"]).abs().max()) < 0.35
    torch.testing.assert_close(draws.std(0), post.sd["D"], rtol=0.25, atol=0)
    assert torch.isfinite(post.khat).all()
    assert torch.isfinite(post.ppc).all()
    weighted = fit.posterior(y, reweight=True)
    assert torch.isfinite(weighted.mean["K"]).all()
    assert post.to_arviz(slice(0, 10), n_draws=40)["posterior"]["D"].shape[-1] == 10
    assert torch.isfinite(torch.tensor([cell.coverage for cell in check(fit, n=400, seed=1).cells])).all()
    other = pq.fit(y, ACQ, signal="msdki", recipe="hierarchical", settings=FEW)
    compared = pq.compare({"flow": fit, "structured": other}, y, seed=1)
    evidence = {row.name: row.total for row in compared.ranking("evidence")[0]}
    # the model is the same but for what 20 steps learned of the population: evidence integrates the guide out
    assert abs(evidence["flow"] - evidence["structured"]) / len(y) < 0.5


def test_a_likelihood_needs_only_a_density():
    y = measured()
    fit = pq.fit(y, ACQ, signal="msdki", recipe="hierarchical", likelihood=Heavy, settings=FEW)
    assert not fit.preparation.magnitude
    assert torch.isfinite(fit.posterior(y).mean["D"]).all()
    assert fit.recipe.kind("likelihood").endswith("test_parts:Heavy")


def test_registered_names_are_kinds(own, monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "REGISTRIES", {k: dict(v) for k, v in parts.REGISTRIES.items()})
    pq.register(prior={"student": own.Student}, guide={"flow": own.Flow})
    by_name = {"prior.kind": "student", **FEW}
    fit = pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", settings=by_name)
    assert isinstance(fit.model.prior, own.Student)
    fit.save(tmp_path / "fit")
    assert isinstance(pq.load_fit(tmp_path / "fit").model.prior, own.Student)  # registered: named by the user
    same = pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", prior=own.Student, settings=FEW)
    assert same.recipe.kind("prior") == "student"
    found = elsewhere(LOAD.format(""), tmp_path)
    assert re.search(r"unknown kind of prior 'student'.*pyroqmri\.register\(prior=", found.stderr)


def test_a_recipe_file_names_a_module(own, tmp_path):
    text = (Path(pq.__file__).parents[1] / "models" / "hierarchical.toml").read_text()
    recipe = tmp_path / "student.toml"
    recipe.write_text(text.replace('kind = "hierarchical"', 'kind = "strangers:Student"'))
    fit = pq.fit(measured(), ACQ, signal="msdki", recipe=recipe, settings=FEW)
    assert isinstance(fit.model.prior, own.Student)


def test_factories_are_objects_only(own, tmp_path):
    fit = pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", prior=own.factory, settings=FEW)
    assert isinstance(fit.model.prior, own.Student)
    fit.save(tmp_path / "fit")
    with pytest.raises(pq.InputError, match="a factory has to be given as an object or registered"):
        pq.load_fit(tmp_path / "fit", trust=True)
    assert isinstance(pq.load_fit(tmp_path / "fit", prior=own.factory).model.prior, own.Student)


def test_only_parts_are_ever_called(tmp_path, own):
    """A recipe that names something else than a part of its kind runs nothing of it."""
    for kind in ("os:system", "subprocess:Popen", "strangers:NOT_A_PRIOR", "strangers:Flow", "os:path.join"):
        with pytest.raises(pq.InputError, match="is no subclass of pyroqmri's Prior"):
            pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", settings={"prior.kind": kind})
    with pytest.raises(pq.InputError, match="module strangers has no Nobody"):
        pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", settings={"prior.kind": "strangers:Nobody"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prior": MapStarted}, "prior MapStarted must be a subclass of pyroqmri's Prior"),
        ({"guide": 3}, "guide must be a class or a factory"),
        ({"prior": Hierarchical(2)}, "give Hierarchical itself"),
        ({"prior": ":x"}, "must read my_module:MyClass"),
        ({"prior": "..a:b"}, "must read my_module:MyClass"),
        ({"prior": "studnet"}, "unknown kind of prior 'studnet'"),
        ({"prior": lambda n_tissue, n_direction: torch.nn.Identity()}, "made a Identity, which is no Prior"),
    ],
)
def test_what_is_no_part_is_refused(given, said):
    with pytest.raises(pq.InputError, match=re.escape(said)):
        pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", settings=FEW, **given)


def test_an_estimator_without_the_part_refuses_it():
    with pytest.raises(pq.InputError, match="recipe least_squares has no prior to swap"):
        pq.fit(measured(), ACQ, signal="msdki", recipe="least_squares", prior=Hierarchical)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prior": {"hierarchical": Hierarchical.__base__}}, "is there already"),
        ({"prior": {"a:b": Hierarchical}}, "takes plain names"),
        ({"prior": {3: Hierarchical}}, "takes plain names"),
        ({"prior": 3}, "register takes classes by name"),
        ({"likelihood": {"mine": Hierarchical}}, "must be a subclass of pyroqmri's Likelihood"),
        ({"signal": {"mine": Hierarchical}}, "must be a subclass of SignalModel"),
    ],
)
def test_what_cannot_be_registered_is_said(given, said):
    before = dict(PRIORS)
    with pytest.raises(pq.InputError, match=said):
        pq.register(**given)
    assert before == PRIORS


def test_a_new_kind_leaves_the_object_behind(own):
    from pyroqmri.fitting.schema import with_settings

    fit = pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", prior=own.Student, settings=FEW)
    assert fit.recipe.objects == {"prior": own.Student}
    changed = with_settings(fit.recipe, {"prior.kind": "full_hierarchical"})
    assert changed.objects == {}


def test_positions_and_covariates_reach_the_prior():
    seen = {}

    class Looks(Hierarchical):
        def z_dist(self, population, voxels):
            seen["position"], seen["age"] = voxels.position, voxels.covariates["age"]
            return super().z_dist(population)

    y = measured()
    y[3] = float("nan")
    ijk = torch.arange(3 * len(y)).view(-1, 3)
    age = torch.arange(float(len(y)))
    fit = pq.fit(y, ACQ, signal="msdki", recipe="hierarchical", prior=Looks, settings=FEW, voxels=ijk,
                 covariates={"age": age})  # fmt: skip
    assert seen["position"].shape[1] == 3
    rows = seen["age"].long()
    torch.testing.assert_close(seen["position"], ijk[rows])  # each voxel its own, whatever the batch
    assert 3 not in rows.tolist()
    mask = torch.zeros(6, 5, 4)
    mask.view(-1)[: len(y)] = 1
    fit.posterior(y, mask=mask, covariates={"age": age}, reweight=True).mean["D"].sum()
    assert seen["position"].shape[1] == 3
    for wrong, said in (({"voxels": ijk[:5]}, "voxels must be integer indices"),
                        ({"voxels": ijk, "mask": mask}, "give one of them"),
                        ({"covariates": {"age": age[:4]}}, "covariate age must be")):  # fmt: skip
        with pytest.raises(pq.InputError, match=said):
            fit.posterior(y, **{"covariates": {"age": age}, **wrong})
    with pytest.raises(pq.InputError, match="trained with the covariates age, and these voxels come with none"):
        fit.posterior(y)
    assert any("depends on the voxel" in w for w in fit.warnings)


def test_rician_and_gaussian_say_what_they_are():
    assert RicianLikelihood.magnitude
    assert not Likelihood.smooth


def test_a_denoiser_imports_nothing(tmp_path, monkeypatch):
    """A folder that calls itself a denoiser's, with another estimator's recipe in it, runs no module it names."""
    (tmp_path / "runs_at_import.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    fit = pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", settings=FEW)
    fit.save(tmp_path / "fit")
    recipe = (
        (tmp_path / "fit" / "recipe.toml").read_text().replace('kind = "hierarchical"', 'kind = "runs_at_import:X"')
    )
    reseal(tmp_path / "fit", toml=recipe.encode(), estimator="denoiser")
    with pytest.raises(pq.InputError, match="is one of a voxel_model"):
        pq.load_denoiser(tmp_path / "fit")


def test_another_class_than_the_trained_one_is_refused(own, tmp_path):
    """The weights would fit, and every density would be another one."""
    pq.fit(measured(), ACQ, signal="msdki", recipe="hierarchical", settings=FEW).save(tmp_path / "fit")
    with pytest.raises(pq.InputError, match="trained with prior 'hierarchical', and strangers:Student was given"):
        pq.load_fit(tmp_path / "fit", prior=own.Student)


class Tilted(Hierarchical):
    """Looks at a covariate, or at the position."""

    def z_dist(self, population, voxels):
        x = voxels.covariates["age"] if self.n_latents == 3 else voxels.position[:, 0]
        return super().z_dist(population).expand(x.shape)


def test_voxels_without_what_a_prior_looks_at():
    for n, said in ((2, "give voxels= or mask="), (3, "covariate 'age', which these voxels come without")):
        prior = Tilted(n)
        with pytest.raises(pq.InputError, match=said):
            prior.log_prob(torch.zeros(5, n), prior.classes(), Voxels(torch.zeros(5, 3)))
