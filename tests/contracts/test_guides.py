"""What every guide keeps to, and decoders with it."""

import copy
import inspect

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Normal, TransformedDistribution
from pyro.distributions.transforms import AffineTransform, Spline

from pyroqmri.decoders import DECODERS, IdentityDecoder, NetworkDecoder
from pyroqmri.distributions import GaussianMixture
from pyroqmri.guides import GUIDES, Guide
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import PRIORS
from pyroqmri.signals import IVIM, BallStick, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.contracts.test_signals import CASES
from tests.test_grid import MAKES_SENSE

N = 30


class SplineFlow(Guide):
    """A posterior that is no Gaussian mixture: a spline flow around each voxel's own mode."""

    needs_mode = True

    def __init__(self, model, n_measurements):
        super().__init__(model)
        self.spline = Spline(model.n_latents, bound=6.0)

    def z_dist(self, voxels):
        base = Normal(torch.zeros_like(voxels.mode), torch.ones_like(voxels.mode)).to_event(1)
        scale = voxels.scale_tril.diagonal(dim1=-2, dim2=-1)
        return TransformedDistribution(base, [self.spline, AffineTransform(voxels.mode, scale, event_dim=1)])


def cells():
    """Every guide with a prior and a decoder that it works with."""
    for decoder, row in MAKES_SENSE.items():
        for prior, guides in row.items():
            for guide in guides.split():
                yield pytest.param(guide, prior, decoder, id=f"{guide}-{prior}-{decoder}")


EVERY = pytest.mark.parametrize(("guide", "prior", "decoder"), [
    *cells(), pytest.param("own flow", "hierarchical", "identity", id="flow-hierarchical-identity"),
])  # fmt: skip
SIGNALS = pytest.mark.parametrize("signal", [IVIM, BallStick], ids=["ivim", "ball_stick"])


def pair(guide: str, prior: str, decoder: str, signal) -> tuple[VoxelModel, Guide, Voxels]:
    """A started pair and its prepared voxels."""
    torch.manual_seed(0)
    bound = BoundSignal(signal, CASES["ivim" if signal is IVIM else "ball_stick"].acquisition)
    n_direction = bound.n_latents - bound.n_tissue
    made = DECODERS[decoder](bound.n_tissue, n_direction)
    model = VoxelModel(bound, PRIORS[prior](made.n_tissue_latents, n_direction), made, RicianLikelihood(), 0.05)
    few = {"simulations": 100} if guide.startswith("forward") else {}
    kind = SplineFlow if guide == "own flow" else GUIDES[guide]
    found = kind(model, len(bound.acquisition), **few)
    with torch.no_grad():
        y = model.y_dist(0.3 * torch.randn(N, model.n_latents), model.unmeasured(N)).sample()
    voxels = found.prepare(y)
    model.start(voxels)
    found.start(voxels)
    return model, found, found.training_set(voxels)


@SIGNALS
@EVERY
def test_what_is_sampled_has_the_density_that_z_dist_says(guide, prior, decoder, signal):
    _, found, voxels = pair(guide, prior, decoder, signal)
    if prior in ("full_hierarchical", "relaxed_mixture") or guide.startswith("structured"):
        pytest.skip("in training it samples a population or a component first, or takes fewer steps than z_dist")
    with torch.no_grad():
        trace = poutine.trace(found).get_trace(voxels)
        trace.compute_log_prob()
        z, q = trace.nodes["z"]["value"], found.z_dist(voxels)
        if "c" not in trace.nodes:
            torch.testing.assert_close(trace.nodes["z"]["log_prob"], q.log_prob(z), rtol=1e-4, atol=1e-3)
            return
        one = found.z_dist(voxels)
        c = trace.nodes["c"]["value"]
        rows = torch.arange(len(voxels))
        alone = GaussianMixture.single(one.loc[rows, c], one.scale_tril[rows, c])
        torch.testing.assert_close(trace.nodes["z"]["log_prob"], alone.log_prob(z), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(trace.nodes["c"]["log_prob"], one.logits[rows, c], rtol=1e-4, atol=1e-4)


@SIGNALS
@EVERY
def test_the_posterior_is_of_each_voxel_alone(guide, prior, decoder, signal):
    _, found, voxels = pair(guide, prior, decoder, signal)
    some = torch.tensor([3, 17, 8])
    with torch.no_grad():
        whole, part = found.z_dist(voxels), found.z_dist(voxels[some])
    assert whole.batch_shape == (len(voxels),)
    assert whole.event_shape == (found.model.n_latents,)
    if isinstance(whole, GaussianMixture):
        # a search for modes stops when all of them are found, so a voxel among others may take a step more
        sd = whole.variance[some].sqrt()
        assert float(((part.mean - whole.mean[some]) / sd).abs().max()) < 0.05
        torch.testing.assert_close(part.variance.sqrt(), sd, rtol=0.05, atol=1e-4)


@SIGNALS
@EVERY
def test_model_and_guide_share_no_parameter(guide, prior, decoder, signal):
    model, found, _ = pair(guide, prior, decoder, signal)
    theirs = {id(p) for p in model.parameters()}
    assert not [name for name, p in found.named_parameters() if id(p) in theirs]
    assert not [name for name in found.state_dict() if name.startswith(("_model", "model."))]


@SIGNALS
@EVERY
def test_weights_make_the_same_guide_again(guide, prior, decoder, signal):
    model, found, voxels = pair(guide, prior, decoder, signal)
    few = {"simulations": 100} if guide.startswith("forward") else {}
    again = type(found)(model, len(model.signal.acquisition), **few)
    again.load_state_dict(copy.deepcopy(found.state_dict()))
    fresh = found.prepare(voxels.y)
    with torch.no_grad():
        one, other = found.z_dist(fresh), again.z_dist(fresh)
        z = torch.zeros(len(voxels), model.n_latents)
        torch.testing.assert_close(one.log_prob(z), other.log_prob(z))


@SIGNALS
@EVERY
def test_the_loss_has_a_gradient_for_everything_that_is_learned(guide, prior, decoder, signal):
    model, found, voxels = pair(guide, prior, decoder, signal)
    with pyro.validation_enabled(False):
        loss = found.objective()(model, found, voxels)
    loss.backward()
    assert torch.isfinite(loss)
    learned = [*found.named_parameters(), *model.prior.named_parameters()]
    missed = [name for name, p in learned if p.grad is None and p.numel()]
    allowed = {"shear"} if prior == "full_hierarchical" else set()
    if guide == "own flow" or guide.startswith("structured") or guide.startswith("relaxed"):
        allowed |= {"component"}
    assert not [name for name in missed if name.split(".")[0] not in allowed]


@pytest.mark.parametrize("kind", [*GUIDES.values(), SplineFlow])
def test_every_guide_is_made_alike(kind):
    assert list(inspect.signature(kind).parameters)[:2] == ["model", "n_measurements"]


@pytest.mark.parametrize("n_direction", [0, 2])
@pytest.mark.parametrize("kind", DECODERS.values())
def test_decoders_pass_directions_through_and_start_as_the_identity(kind, n_direction):
    decoder = kind(3, n_direction)
    z = torch.randn(4, 5, 3 + n_direction)
    u = decoder(z)
    assert u.shape == z.shape
    torch.testing.assert_close(u, z)
    assert list(inspect.signature(kind).parameters)[:2] == ["n_tissue", "n_direction"]


def test_decoders_act_on_each_voxel_alone():
    decoder = NetworkDecoder(3, 2, width=8)
    for p in decoder.parameters():
        p.data += 0.1 * torch.randn_like(p)
    z = torch.randn(6, 5)
    torch.testing.assert_close(decoder(z)[2:4], decoder(z[2:4]))
    torch.testing.assert_close(decoder(z)[:, 3:], z[:, 3:])
    assert isinstance(IdentityDecoder(3), torch.nn.Module)


@SIGNALS
@EVERY
def test_a_guide_for_any_protocol_has_weights_that_no_number_of_measurements_changes(guide, prior, decoder, signal):
    if guide == "own flow":
        pytest.skip("it is no guide of the registry")
    bound = BoundSignal(signal, CASES["ivim" if signal is IVIM else "ball_stick"].acquisition)
    n_direction = bound.n_latents - bound.n_tissue
    made = DECODERS[decoder](bound.n_tissue, n_direction)
    model = VoxelModel(bound, PRIORS[prior](made.n_tissue_latents, n_direction), made, RicianLikelihood(), 0.05)
    few, more = (GUIDES[guide](model, n) for n in (4, 9))
    same = [v.shape for v in few.state_dict().values()] == [v.shape for v in more.state_dict().values()]
    assert same or not few.any_protocol
    assert few.sees_measurements == (not same)  # those would be turned by other gradient directions
