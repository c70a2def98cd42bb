"""What every prior keeps to: one density, that of its own program."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Categorical, MultivariateNormal, MultivariateStudentT, Normal, TransformedDistribution
from pyro.distributions.transforms import AffineTransform, Spline
from torch import nn

from pyroqmri.decoders import IdentityDecoder, NetworkDecoder
from pyroqmri.errors import InputError
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.priors import PRIORS, Hierarchical, Mixture, Population, Prior, RelaxedMixture
from pyroqmri.priors.relaxed import gumbel_points
from pyroqmri.signals import IVIM, BallStick, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.contracts.test_signals import CASES

N, S, P = 40, 7, 3
LARGEST = 1e-4  # nats per voxel between log_joint and the trace


class StudentT(Hierarchical):
    """A population with heavier tails, in four lines."""

    def z_dist(self, population):
        return MultivariateStudentT(torch.tensor(4.0), population.loc[0], population.scale_tril[0])


class Flow(Hierarchical):
    """A spline flow over a learned normal; with a forward of its own and no z_dist."""

    def __init__(self, n_tissue, n_direction=0):
        super().__init__(n_tissue, n_direction)
        self.spline = Spline(self.n_latents, count_bins=4)
        for p in self.spline.parameters():  # its random start has spikes that importance sampling would miss
            p.data *= 0.2

    def forward(self, population):
        loc, scale = population.loc[0], population.scale_tril[0].diagonal()
        base = Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)
        return pyro.sample("z", TransformedDistribution(base, [self.spline, AffineTransform(loc, scale, event_dim=1)]))


class Outliers(Hierarchical):
    """A discrete site beside the latent: one voxel in ten is from a population three times as wide."""

    def forward(self, population):
        outlier = pyro.sample("outlier", Categorical(torch.tensor([0.9, 0.1])))
        tril = population.scale_tril[0] * (1 + 2 * outlier)[..., None, None]
        return pyro.sample("z", MultivariateNormal(population.loc[0], scale_tril=tril))


class Elevated(Hierarchical):
    """A mean that depends on where the voxel lies."""

    def z_dist(self, population, voxels):
        return MultivariateNormal(population.loc[0] + 0.1 * voxels.position[:, :1], scale_tril=population.scale_tril[0])


OWN = [StudentT, Flow, Outliers]
EVERY = pytest.mark.parametrize("kind", [*PRIORS.values(), *OWN], ids=lambda kind: kind.__name__)


def moved(prior: Prior) -> Prior:
    """A prior that has left its start."""
    torch.manual_seed(0)
    for p in prior.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return prior


def model_of(kind, signal=IVIM, decoder=IdentityDecoder) -> VoxelModel:
    bound = BoundSignal(signal, CASES["ivim" if signal is IVIM else "ball_stick"].acquisition)
    n_direction = bound.n_latents - bound.n_tissue
    return VoxelModel(bound, moved(kind(bound.n_tissue, n_direction)), decoder(bound.n_tissue, n_direction),
                      RicianLikelihood(), sigma=0.05)  # fmt: skip


def voxels_of(model: VoxelModel):
    torch.manual_seed(1)
    with torch.no_grad():
        blank = model.unmeasured(N)
        y = model.y_dist(0.3 * torch.randn(N, model.n_latents), blank).sample()
    return model.prepare(y, mode=False)


def traced(model: VoxelModel, z, voxels):
    """Log-density of the latents and the measurements in the Pyro program, discrete sites summed out by brute force."""
    population = model.prior.classes()
    at_population = poutine.block(poutine.condition(model, data={"z": z}), hide_fn=lambda site: site["name"] == "none")
    with poutine.block():
        trace = poutine.trace(at_population).get_trace(voxels)
    extra = [n for n, site in trace.nodes.items() if site["type"] == "sample" and n in ("c", "outlier")]
    del population
    if not extra:
        trace.compute_log_prob()
        return trace.nodes["z"]["log_prob"] + trace.nodes["y"]["log_prob"]
    (name,) = extra
    terms = []
    for k in trace.nodes[name]["fn"].enumerate_support(expand=False).flatten():
        fixed = poutine.condition(model, data={"z": z, name: k.expand(len(voxels))})
        one = poutine.trace(fixed).get_trace(voxels)
        one.compute_log_prob()
        terms.append(sum(one.nodes[s]["log_prob"] for s in (name, "z", "y")))
    return torch.stack(terms).logsumexp(0)


@pytest.mark.parametrize("decoder", [IdentityDecoder, NetworkDecoder])
@pytest.mark.parametrize("signal", [IVIM, BallStick])
@EVERY
def test_log_joint_is_the_density_of_the_program(kind, signal, decoder):
    if kind is RelaxedMixture:
        pytest.skip("its component is continuous: see the integral below")
    model = model_of(kind, signal, decoder)
    voxels = voxels_of(model)
    torch.manual_seed(2)
    z = 0.7 * torch.randn(N, model.n_latents)
    program = model
    if model.prior.follows_draws:  # a population with a posterior: at its centre, which log_joint is conditional on
        model.prior.population = model.prior.classes
    with torch.no_grad():
        difference = model.log_joint(z, voxels) - traced(program, z, voxels)
    assert float(difference.abs().max()) <= LARGEST


@EVERY
def test_draws_lead_and_nothing_depends_on_the_others(kind):
    prior = moved(kind(P))
    z = torch.randn(S, N, P)
    with torch.no_grad():
        whole = prior.log_prob(z, prior.classes())
        assert whole.shape == (S, N)
        torch.testing.assert_close(whole[3], prior.log_prob(z[3], prior.classes()), rtol=1e-4, atol=1e-4)


@EVERY
def test_the_density_integrates_to_one(kind):
    # importance sampling from a wider normal: 200,000 points leave a standard error near 0.005, 40,000 near 0.01
    prior, n = moved(kind(2)), 40_000 if kind is PRIORS["relaxed_mixture"] else 200_000  # which is integrated itself
    wide = MultivariateNormal(torch.zeros(2), covariance_matrix=4 * torch.eye(2))
    torch.manual_seed(3)
    z = wide.sample((n,))
    with torch.no_grad():
        ratio = (prior.log_prob(z, prior.classes()) - wide.log_prob(z)).exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=0.02 if n > 40_000 else 0.03)


@EVERY
def test_samples_are_of_the_density(kind):
    """Mean log-density of own samples is minus the entropy: below it for any other density (Gibbs)."""
    prior = moved(kind(2))
    population = Population(*(t.detach() for t in prior.classes()))
    torch.manual_seed(4)
    with torch.no_grad(), pyro.plate("voxels", 40_000):
        z = prior.latents(population, None)
    with torch.no_grad():
        log_prob = prior.log_prob(z, population)
        shifted = prior.log_prob(z + 0.5, population)
    assert float(log_prob.mean()) > float(shifted.mean())
    # the mean of p(z + d) / p(z) over samples of p is one, for any density that is p's
    assert float((shifted - log_prob).exp().mean()) == pytest.approx(1, abs=0.05)


@EVERY
def test_latents_of_a_direction_are_standard_normal(kind):
    if kind in (Flow, Outliers, StudentT):
        pytest.skip("a test's own prior need not be uniform over axes")
    prior = moved(kind(P, 2))
    loc, tril = prior.classes()[1:]
    torch.testing.assert_close(loc[:, P:].detach(), torch.zeros(len(loc), 2))
    torch.testing.assert_close(tril[:, P:].detach(), torch.eye(P + 2)[P:].expand(len(loc), 2, -1))


@EVERY
def test_weights_carry_over(kind):
    one, other = moved(kind(P)), kind(P)
    other.load_state_dict(one.state_dict())
    z = torch.randn(N, P)
    with torch.no_grad():
        torch.testing.assert_close(other.log_prob(z, other.classes()), one.log_prob(z, one.classes()))


def test_the_relaxed_component_is_integrated():
    """Against 400,000 random components: their mean density has a standard error below 0.01 of itself here."""
    prior = moved(RelaxedMixture(2, classes=3))
    population = Population(*(t.detach() for t in prior.classes()))
    torch.manual_seed(5)
    with torch.no_grad(), pyro.plate("voxels", 50):
        z = prior.latents(population, None)
    u = torch.rand(400_000, 3).clamp(1e-9, 1 - 1e-7)
    c = ((population.log_weights - (-u.log()).log()) / prior.temperature).softmax(-1)
    scale = population.scale_tril.diagonal(dim1=-2, dim2=-1)
    parts = Normal(c @ population.loc, c @ scale).to_event(1)
    brute = torch.stack([parts.log_prob(one).logsumexp(0) for one in z]) - torch.tensor(400_000.0).log()
    torch.testing.assert_close(prior.log_prob(z, population), brute, rtol=0, atol=0.03)
    assert gumbel_points(64, 3).shape == (64, 3)


def test_a_one_hot_component_leaves_a_mixture():
    hard = moved(RelaxedMixture(2, classes=3, straight_through=True))
    mixture = Mixture(2, classes=3, diagonal=True)
    mixture.load_state_dict({k: v for k, v in hard.state_dict().items() if k in mixture.state_dict()})
    z = torch.randn(N, 2)
    with torch.no_grad():
        torch.testing.assert_close(hard.log_prob(z, hard.classes()), mixture.log_prob(z, mixture.classes()))


def test_a_continuous_site_beside_the_latent_is_refused():
    class Scaled(Hierarchical):
        def forward(self, population):
            scale = pyro.sample("scale", Normal(0.0, 1.0)).exp()
            return pyro.sample("z", Normal(population.loc[0], scale[..., None]).to_event(1))

    prior = Scaled(2)
    with pytest.raises(InputError, match="continuous site 'scale' beside 'z'"):
        prior.log_prob(torch.zeros(3, 2), prior.classes())


def test_a_prior_may_look_at_where_voxels_lie():
    model = model_of(Elevated)
    voxels = voxels_of(model_of(Hierarchical))
    height = torch.arange(N)[:, None].expand(N, 3)
    placed = voxels.__class__(**{**vars(voxels), "position": height})
    z = torch.zeros(N, model.n_latents)
    with torch.no_grad():
        found = model.log_joint(z, placed)
        expected = model.y_dist(z, placed).log_prob(placed.y)
        loc = model.prior.loc + 0.1 * height[:, :1]
        tril = model.prior.classes().scale_tril[0]
        expected = expected + MultivariateNormal(loc, scale_tril=tril).log_prob(z)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_a_mixture_of_ones_own_is_not_given_the_closed_form_of_another():
    class Wide(Mixture):
        def forward(self, population):
            wide = population._replace(scale_tril=2 * population.scale_tril)
            return super().forward(wide)

    prior = moved(Wide(2, classes=2))
    population = prior.classes()
    wide = Population(population.log_weights, population.loc, 2 * population.scale_tril)
    z = torch.randn(N, 2)
    with torch.no_grad():
        torch.testing.assert_close(prior.log_prob(z, population), Mixture.z_dist(prior, wide).log_prob(z))


def test_every_prior_is_a_module():
    assert all(issubclass(kind, nn.Module) for kind in PRIORS.values())
