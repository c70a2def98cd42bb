"""What every guide keeps to, and what each starts as."""

from dataclasses import replace

import pyro
import pytest
import torch

from pyroqmri.decoders import Decoder, IdentityDecoder, NetworkDecoder
from pyroqmri.errors import InputError
from pyroqmri.guides import (
    GUIDES,
    Counted,
    Encoder,
    ForwardMixture,
    Free,
    MapStarted,
    MixtureEncoder,
    RelaxedDecoded,
    RelaxedEncoder,
    Structured,
    StructuredDecoded,
)
from pyroqmri.guides.base import tril_from
from pyroqmri.guides.features import Features
from pyroqmri.likelihoods import GaussianLikelihood, RicianLikelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Mixture, Prior, RelaxedMixture, StandardNormal
from pyroqmri.signals import BallStick, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import SIGMA, quadratic_data, quadratic_model, quadratic_signal, rician, shells

DECODED = (StructuredDecoded, RelaxedDecoded)
ANY = {name: kind for name, kind in GUIDES.items() if kind is not Counted}  # that one needs parts that can be counted
EVERY = pytest.mark.parametrize("kind", ANY.values(), ids=ANY)
ACQ = shells(2, 20, 1.0, 2.0)


def prior_for(kind: type, n_tissue: int, n_direction: int = 0) -> Prior:
    """The prior that a guide is made for."""
    relaxed = dict.fromkeys((RelaxedEncoder, RelaxedDecoded), RelaxedMixture)
    prior = ({MixtureEncoder: Mixture} | relaxed).get(kind)
    return StandardNormal(n_tissue, n_direction) if prior is None else prior(n_tissue, n_direction, classes=2)


def decoder_for(kind: type, n_tissue: int, n_direction: int = 0) -> Decoder:
    """The decoder that a guide is made for."""
    return (NetworkDecoder if kind in DECODED else IdentityDecoder)(n_tissue, n_direction)


def stick_model(kind: type = Encoder) -> tuple[VoxelModel, torch.Tensor]:
    signal = BoundSignal(BallStick, ACQ)
    generator = torch.Generator().manual_seed(0)
    n = torch.nn.functional.normalize(torch.randn(60, 3, generator=generator), dim=-1)
    tissue = {"f": 0.3, "D_par": 1.0, "D_iso": 0.5}
    theta = {k: low + 0.6 * torch.rand(60, generator=generator) for k, low in tissue.items()} | {"n": n}
    model = VoxelModel(signal, prior_for(kind, 3, 2), decoder_for(kind, 3, 2), RicianLikelihood(), 0.03)
    return model, rician(signal(theta), 0.03)


def toy(kind: type = Encoder) -> tuple[VoxelModel, torch.Tensor]:
    signal, likelihood = quadratic_signal(), GaussianLikelihood()
    return VoxelModel(signal, prior_for(kind, 3), decoder_for(kind, 3), likelihood, SIGMA), quadratic_data(60)


def build(kind, model, n):
    few = {"simulations": 200} if issubclass(kind, ForwardMixture) else {}
    return kind(model, n) if kind is Free else kind(model, n, width=16, **few)


def made(kind, model, y):
    guide = build(kind, model, y.shape[1])
    voxels = guide.prepare(y)
    model.start(voxels)
    guide.start(voxels)
    return guide, guide.training_set(voxels) if kind is Free else voxels


@pytest.mark.parametrize("pair", [toy, stick_model])
@EVERY
def test_one_distribution_a_voxel(kind, pair):
    model, y = pair(kind)
    guide, voxels = made(kind, model, y)
    q = guide.z_dist(voxels)
    assert (q.batch_shape, q.event_shape) == ((60,), (model.n_latents,))
    assert torch.isfinite(q.loc).all()
    assert (q.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert torch.equal(q.scale_tril, q.scale_tril.tril())
    assert torch.isfinite(q.log_prob(q.sample())).all()


@pytest.mark.parametrize("pair", [toy, stick_model])
@EVERY
def test_its_site_is_its_distribution(kind, pair):
    model, y = pair(kind)
    guide, voxels = made(kind, model, y)
    trace = pyro.poutine.trace(guide).get_trace(voxels)
    trace.compute_log_prob()
    site = trace.nodes["z"]
    climbs = isinstance(guide, Structured)  # fewer steps in training than when predicting
    q = guide.components(voxels, guide.steps, model.prior.classes()) if climbs else guide.z_dist(voxels)
    if isinstance(guide, RelaxedEncoder | RelaxedDecoded):  # its component is a point between the components
        assert torch.isfinite(site["log_prob"]).all()
        return
    if "c" not in trace.nodes:
        torch.testing.assert_close(site["log_prob"], q.log_prob(site["value"]), rtol=1e-4, atol=1e-3)
        return
    c, row = trace.nodes["c"]["value"], torch.arange(60)
    component = torch.distributions.MultivariateNormal(q.loc[row, c], scale_tril=q.scale_tril[row, c])
    torch.testing.assert_close(site["log_prob"], component.log_prob(site["value"]), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(trace.nodes["c"]["log_prob"], q.logits[row, c])


@pytest.mark.parametrize("pair", [toy, stick_model])
@EVERY
def test_every_weight_is_trained(kind, pair):
    model, y = pair(kind)
    guide, voxels = made(kind, model, y)
    torch.manual_seed(0)
    guide.objective()(model, guide, guide.training_set(voxels)).backward()
    for name, parameter in guide.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # one class has no weight to correct
        if not (kind is Structured and name.endswith("bias")):
            assert parameter.grad.abs().sum() > 0, name


@EVERY
def test_a_voxel_alone_is_treated_as_among_others(kind):
    model, y = stick_model(kind)
    guide, voxels = made(kind, model, y)
    voxels = replace(voxels, index=None)
    few = guide.z_dist(guide.prepare(y[[7, 3]]))
    among = guide.z_dist(voxels)
    # where a decoder bends the latent, sums in another order end a few steps elsewhere
    torch.testing.assert_close(few.loc, among.loc[[7, 3]], rtol=1e-3, atol=5e-3 if kind in DECODED else 1e-3)
    torch.testing.assert_close(few.scale_tril, among.scale_tril[[7, 3]], rtol=1e-2, atol=1e-3)


@EVERY
def test_weights_saved_and_loaded_answer_the_same(kind):
    model, y = toy(kind)
    guide, voxels = made(kind, model, y)
    torch.manual_seed(5)
    other = build(kind, model, 8)
    other.load_state_dict(guide.state_dict())
    ours, theirs = guide.z_dist(voxels), other.z_dist(voxels)
    assert torch.equal(ours.loc, theirs.loc)
    assert torch.equal(ours.scale_tril, theirs.scale_tril)


def test_a_map_started_guide_starts_as_the_laplace_approximation():
    model, y = stick_model()
    guide, voxels = made(MapStarted, model, y)
    torch.nn.init.zeros_(guide.network[-1].weight)
    q = guide.z_dist(voxels)
    torch.testing.assert_close(q.loc.squeeze(-2), voxels.mode)
    torch.testing.assert_close(q.scale_tril.squeeze(-3), voxels.scale_tril)


def test_a_map_started_guide_refuses_a_networks_latents():
    model = VoxelModel(quadratic_model().signal, StandardNormal(3), NetworkDecoder(3), RicianLikelihood())
    with pytest.raises(InputError, match="needs the identity decoder"):
        MapStarted(model, 8)


def test_an_encoder_starts_narrow_and_knows_covariances_unless_told_not_to():
    model, y = toy()
    guide, voxels = made(Encoder, model, y)
    assert guide.z_dist(voxels).component_sd().max() < 0.5
    diagonal = Encoder(model, 8, width=16, diagonal=True)
    off = diagonal.z_dist(voxels).scale_tril.squeeze(-3)
    assert torch.equal(off, torch.diag_embed(off.diagonal(dim1=-2, dim2=-1)))


def test_tril_from_covers_correlations_of_any_sign():
    tril = tril_from(torch.tensor([[0.0, 0.7, -3.0], [0.0, 0.7, 3.0]]), 2)
    covariance = tril @ tril.mT
    assert covariance[0, 0, 1] < -0.8
    assert covariance[1, 0, 1] > 0.8
    assert torch.isfinite(tril_from(torch.tensor([[1e4, -1e4, 1e4]]), 2)).all()


def test_features_are_standardised_and_outliers_pulled_in():
    y = 5 + 2 * torch.randn(500, 3)
    features = Features(3, 0)
    features.fit(Voxels(y))
    seen = features(Voxels(y))
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.ones(3), atol=2e-2, rtol=0)
    assert features(Voxels(torch.full((1, 3), 1e6))).max() == 5
    constant = Features(1, 0)
    constant.fit(Voxels(torch.ones(10, 1)))
    assert torch.isfinite(constant(Voxels(torch.ones(10, 1)))).all()


def test_with_a_direction_the_mode_stands_for_the_measurements():
    model, y = stick_model()
    guide, voxels = made(Encoder, model, y)
    assert guide.features.size == 2 * 5
    # turning head and gradients together changes nothing a network could see
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
    turned = BoundSignal(BallStick, type(ACQ)(bval=ACQ.bval, bvec=ACQ.bvec @ turn.mT))
    other = VoxelModel(turned, StandardNormal(3, 2), IdentityDecoder(3, 2), RicianLikelihood(), 0.03)
    seen = guide.features(other.prepare(y, mode=True))
    torch.testing.assert_close(seen[:, :3], guide.features(voxels)[:, :3], atol=0.05, rtol=0)
