"""What every distribution keeps to, so that Pyro and torch.func can do with it as with their own."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.func import hessian, jvp, vmap

from pyroqmri.distributions import (
    ExpRelaxed,
    GaussianMixture,
    MeasuredNormal,
    NCChi,
    PartlyAveraged,
    Repeats,
    Rician,
    SharedScale,
    Weighted,
    log_g,
    log_i0e,
    ncchi_fisher,
    ncchi_moments,
    normal_points,
    rice_fisher,
    rice_moments,
)

BATCH = torch.Size([2])
LOC = torch.tensor([[0.9, 0.5, 0.2], [1.4, 0.3, 0.1]])
SCALE = torch.tensor([[0.4], [0.7]])
SD = 0.1  # of a shared factor


def a_mixture(shift: Tensor, classes: int = 2) -> GaussianMixture:
    steps = torch.arange(classes, dtype=shift.dtype)[:, None]
    loc = shift[..., None, :] + 1.5 * steps
    tril = torch.tensor([[0.5, 0.0, 0.0], [0.2, 0.4, 0.0], [-0.1, 0.3, 0.6]], dtype=shift.dtype)
    return GaussianMixture(0.4 * steps[:, 0], loc, tril.expand(classes, 3, 3))


def repeats(loc: Tensor) -> Repeats:
    """Three repeats of each of two settings; two nodes of 1.5 carry the moments that a normal density needs."""
    signal, scale = loc[..., :2], SCALE.to(loc)

    def carry(y: Tensor) -> tuple[Tensor, Tensor]:
        y = y.unflatten(-1, (2, 3))
        mean, sd = y.mean(-1), y.std(-1, correction=0)
        return torch.stack([mean - sd, mean + sd], -1).flatten(-2), torch.full_like(y, 1.5)[..., :2].flatten(-2)

    return Repeats(
        lambda: MeasuredNormal(signal.repeat_interleave(3, -1), scale),
        lambda nodes: Normal(signal.repeat_interleave(2, -1), scale, validate_args=False).log_prob(nodes),
        carry,
        torch.zeros_like,
        (torch.empty(0), torch.empty(0), torch.empty(0)),
        loc.shape[:-1],
        6,
    )


def shared_covariance(loc: Tensor) -> Tensor:
    scale = SCALE.to(loc).expand_as(loc)
    return scale.square().diag_embed() + SD**2 * loc.unsqueeze(-1) * loc.unsqueeze(-2)


def shared(loc: Tensor) -> SharedScale:
    scale = SCALE.to(loc)
    return SharedScale(
        lambda factor: MeasuredNormal(loc * factor, scale),
        lambda y: MultivariateNormal(loc, shared_covariance(loc), validate_args=False).log_prob(y),
        torch.tensor(SD, dtype=loc.dtype),
        loc.shape[:-1],
        loc.shape[-1],
    )


def partly(loc: Tensor) -> PartlyAveraged:
    scale = SCALE.to(loc)
    normal = Normal(loc, scale / 2, validate_args=False)
    return PartlyAveraged(Rician(loc, scale), normal, torch.tensor([True, False, False]))


def weighted(loc: Tensor) -> Weighted:
    scale, powers = SCALE.to(loc), torch.tensor([1.0, 0.5, 0.0], dtype=loc.dtype)
    each = Normal(loc, scale, validate_args=False)
    return Weighted(MeasuredNormal(loc, scale), each.log_prob, powers.expand((*BATCH, 3)))


MADE: dict[str, Callable[[Tensor], Any]] = {
    "rician": lambda loc: Rician(loc, SCALE.to(loc)).to_event(1),
    "ncchi": lambda loc: NCChi(loc, SCALE.to(loc), 4.0).to_event(1),
    "partly_averaged": partly,
    "measured_normal": lambda loc: MeasuredNormal(loc, SCALE.to(loc)),
    "one_normal": lambda loc: a_mixture(loc, 1),
    "mixture": a_mixture,
    "exp_relaxed": lambda loc: ExpRelaxed(torch.tensor(0.7).to(loc), logits=loc),
    "repeats": repeats,
    "shared_scale": shared,
    "weighted": weighted,
}
EVERY = pytest.mark.parametrize("made", MADE.values(), ids=MADE)
VALIDATED = pytest.mark.parametrize(
    "name", ["rician", "ncchi", "partly_averaged", "measured_normal", "mixture", "exp_relaxed"]
)


def drawn(made: Callable[[Tensor], Any], *shape: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return made(LOC).sample(torch.Size(shape))


@EVERY
def test_shapes(made):
    d = made(LOC)
    assert d.batch_shape == BATCH
    assert len(d.event_shape) == 1
    assert d.event_dim == 1
    for shape in ((), (5,), (4, 5)):
        y = drawn(made, *shape)
        assert y.shape == torch.Size(shape) + BATCH + d.event_shape
        assert d.log_prob(y).shape == torch.Size(shape) + BATCH
        assert d.support.check(y).all()


@EVERY
def test_sample_axes_are_values_side_by_side(made):
    d, y = made(LOC), drawn(made, 4, 5)
    each = torch.stack([d.log_prob(one) for one in y.flatten(0, 1)]).unflatten(0, (4, 5))
    torch.testing.assert_close(d.log_prob(y), each, rtol=1e-5, atol=1e-5)


@EVERY
def test_expanding_changes_the_shape_alone(made):
    d, y = made(LOC), drawn(made, 6)
    once = d.expand(torch.Size([6, *BATCH]))
    twice = once.expand(torch.Size([3, 6, *BATCH]))
    torch.testing.assert_close(once.log_prob(y), d.log_prob(y), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(twice.log_prob(y), d.log_prob(y).expand(3, 6, 2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(once.log_prob(y[0]), d.log_prob(y[0]).expand(6, 2), rtol=1e-5, atol=1e-5)
    for wide in (once, twice, d.expand_by([3, 6])):
        assert wide.event_shape == d.event_shape
        assert wide.sample((2,)).shape == (2, *wide.batch_shape, *d.event_shape)
        assert (wide.sample().std(0) > 0).all()  # independent draws, not one repeated
    assert d.batch_shape == BATCH


@EVERY
def test_expanded_moments_have_the_expanded_shape(made):
    d = made(LOC)
    wide = d.expand(torch.Size([6, *BATCH]))
    try:
        mean, variance = wide.mean, wide.variance
    except NotImplementedError:
        return
    torch.testing.assert_close(mean, d.mean.expand(6, *d.mean.shape))
    torch.testing.assert_close(variance, d.variance.expand(6, *d.variance.shape))


@EVERY
def test_moments_are_those_of_samples(made):
    # 100,000 draws: standard errors of a mean below .003 of the sd, of a variance near .5 %; five of them
    d = made(LOC)
    try:
        mean, variance = d.mean, d.variance
    except NotImplementedError:
        assert made in (MADE["exp_relaxed"], MADE["shared_scale"])
        return
    y = drawn(made, 100_000)
    assert ((y.mean(0) - mean).abs() < 0.016 * variance.sqrt()).all()
    torch.testing.assert_close(y.var(0), variance, rtol=0.03, atol=0)


@EVERY
def test_rsample_is_there_where_it_is_promised(made):
    loc = LOC.clone().requires_grad_()
    d = made(loc)
    if not d.has_rsample:
        with pytest.raises(NotImplementedError):
            d.rsample()
        assert not d.sample().requires_grad
        return
    (slope,) = torch.autograd.grad(d.rsample(torch.Size([3])).square().sum(), loc)
    assert (slope != 0).all()


@EVERY
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_is_that_of_the_parameters(made, dtype, default):
    torch.set_default_dtype(default)
    d = made(LOC.to(dtype))
    y = d.sample(torch.Size([3]))
    assert y.dtype == d.log_prob(y).dtype == dtype
    if dtype == torch.float64:  # nothing on the way is single
        near = LOC.double() * (1 + 1e-9)
        assert (made(near).log_prob(y) != d.log_prob(y)).all()


@VALIDATED
def test_what_is_no_value_or_no_parameter_is_refused(name):
    d, y = MADE[name](LOC), drawn(MADE[name])
    for one in (d, d.expand(torch.Size([4, *BATCH]))):
        with pytest.raises(ValueError, match="support"):
            one.log_prob(torch.full_like(y, torch.nan))
    with pytest.raises(ValueError, match="constraint"):
        MADE[name](torch.full_like(LOC, torch.nan))


def integral(density: Tensor, x: Tensor) -> Tensor:
    return torch.trapezoid(density, x, dim=0)


def test_densities_over_a_line_integrate_to_one():
    loc, scale, one = LOC.double()[:, :1], SCALE.double(), torch.ones(2, dtype=torch.float64)
    x = torch.linspace(-8, 12, 40_001, dtype=torch.float64)
    mixture = GaussianMixture(
        torch.tensor([0.3, -0.4], dtype=torch.float64),
        torch.stack([loc, loc + 2], -2),
        scale[:, None, None].expand(2, 2, 1, 1),
    )
    at = x[:, None, None].expand(-1, 2, 1)
    for d in (MeasuredNormal(loc, scale), mixture):
        torch.testing.assert_close(integral(d.log_prob(at).exp(), x), one)
    positive = x[x > 0]
    for nu in (0.0, 0.05, 1.0, 6.0):
        density = Rician(nu * one, scale[:, 0]).log_prob(positive[:, None]).exp()
        torch.testing.assert_close(integral(density, positive), one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_the_density_of_a_relaxed_component_integrates_to_one(temperature):
    # on the line of the log odds t: a density over the simplex by its first corner s, over its logarithms times 1 / s
    # and 1 / (1 - s), and ds / dt = s (1 - s)
    t = torch.linspace(-80, 80, 80_001, dtype=torch.float64)
    log_c = torch.stack([torch.nn.functional.logsigmoid(t), torch.nn.functional.logsigmoid(-t)], -1)
    d = ExpRelaxed(torch.tensor(temperature).double(), logits=torch.tensor([0.5, -0.7]).double())
    found = integral(d.log_prob(log_c).exp(), t)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-8)


def test_powers_of_densities():
    """A power of one half is half the logarithm, and what has none may be anything that a density has a value for."""
    y, scale = drawn(MADE["measured_normal"], 5), SCALE.expand_as(LOC)
    found = weighted(LOC).log_prob(y)
    each = Normal(LOC, scale).log_prob(y)
    torch.testing.assert_close(found, each[..., 0] + each[..., 1] / 2)
    y[..., 2] = 1e6
    torch.testing.assert_close(weighted(LOC).log_prob(y), found)


def test_the_joint_densities_are_the_plain_ones():
    loc, y = LOC.double(), drawn(repeats, 5).double()
    plain = MeasuredNormal(loc[:, :2].repeat_interleave(3, -1), SCALE.double())
    torch.testing.assert_close(repeats(loc).log_prob(y), plain.log_prob(y))
    # 100,000 draws: standard errors of the covariance below .4 % of its diagonal
    draws, exact = drawn(shared, 100_000), shared_covariance(LOC)
    for i in range(2):
        torch.testing.assert_close(draws[:, i].T.cov(), exact[i], rtol=0, atol=0.02 * float(exact[i].max()))


@pytest.mark.parametrize("name", ["one_normal", "measured_normal"])
def test_entropy_is_the_expected_log_density(name):
    # 50,000 draws of three dimensions: standard error of the mean sqrt(3 / 2 / 50,000) = .0055
    d = MADE[name](LOC)
    assert d.expand(torch.Size([4, *BATCH])).entropy().shape == (4, 2)
    found = -d.log_prob(drawn(MADE[name], 50_000)).mean(0)
    torch.testing.assert_close(d.entropy(), found, rtol=0, atol=0.028)


def test_divergence_of_single_components_is_torchs():
    p, q = a_mixture(LOC, 1), GaussianMixture.single(0.5 * LOC, torch.eye(3) + 0.2 * torch.ones(3, 3).tril(-1))
    exact = [MultivariateNormal(d.loc[:, 0], scale_tril=d.scale_tril[:, 0]) for d in (p, q)]
    torch.testing.assert_close(kl_divergence(p, q), kl_divergence(*exact))
    torch.testing.assert_close(kl_divergence(p, p), torch.zeros(2), rtol=0, atol=1e-6)
    with pytest.raises(NotImplementedError, match="closed form"):
        kl_divergence(p, a_mixture(LOC))
    with pytest.raises(NotImplementedError, match="closed form"):
        a_mixture(LOC).entropy()


def test_parameters_are_broadcast():
    wide = MeasuredNormal(LOC[0], SCALE)
    assert wide.batch_shape == BATCH
    assert wide.sample((4,)).shape == (4, 2, 3)
    y = torch.randn(3)
    torch.testing.assert_close(wide.log_prob(y), Normal(LOC[0], SCALE).log_prob(y).sum(-1))
    mixture = GaussianMixture(torch.zeros(2), LOC.unsqueeze(-2).expand(2, 2, 3), torch.eye(3).expand(2, 3, 3))
    assert mixture.batch_shape == BATCH
    assert mixture.variance.shape == mixture.sample().shape == (2, 3)


def quiet(made: Callable[[Tensor], Any], loc: Tensor) -> Any:
    """Without validation, which looks at values: torch's own distributions need the same under ``torch.func``."""
    with pyro.validation_enabled(False):
        return made(loc)


# the log-density of the other two is the caller's function
@pytest.mark.parametrize(
    "name", ["rician", "ncchi", "partly_averaged", "measured_normal", "one_normal", "mixture", "exp_relaxed"]
)
def test_torch_func_goes_through(name):
    made = MADE[name]
    loc, y = LOC.double(), drawn(made).double()

    def log_prob(x: Tensor) -> Tensor:
        return quiet(made, x).log_prob(y)

    def total(x: Tensor) -> Tensor:
        return log_prob(x.view(2, 3)).sum()

    many = torch.stack([loc, 1.1 * loc, 0.7 * loc])
    torch.testing.assert_close(vmap(log_prob)(many), torch.stack([log_prob(one) for one in many]))
    slope = torch.autograd.functional.jacobian(total, loc.flatten())
    direction = torch.linspace(-1, 1, 6, dtype=torch.float64)
    torch.testing.assert_close(jvp(total, (loc.flatten(),), (direction,))[1], slope @ direction)
    exact = torch.autograd.functional.hessian(total, loc.flatten())
    torch.testing.assert_close(hessian(total)(loc.flatten()), exact)
    both = vmap(hessian(total))(torch.stack([loc.flatten(), 1.1 * loc.flatten()]))
    torch.testing.assert_close(both[0], exact)


@pytest.mark.parametrize(
    "function",
    [
        log_i0e,
        lambda z: rice_fisher(z, 0.5 * z + 1),
        lambda z: rice_moments(z, z + 1),
        lambda z: log_g(z, 3.0),
        lambda z: ncchi_fisher(z, 0.5 * z + 1, 3.0),
        lambda z: ncchi_moments(z, z + 1, 3.0),
    ],
)
def test_functions_of_magnitudes_go_through_torch_func(function):
    z = torch.tensor([0.1, 0.9, 3.7, 12.0, 70.0], dtype=torch.float64)

    def total(x: Tensor) -> Tensor:
        found = function(x)
        return sum(t.sum() for t in found) if isinstance(found, tuple) else found.sum()

    slope = torch.autograd.functional.jacobian(total, z)
    torch.testing.assert_close(jvp(total, (z,), (torch.ones_like(z),))[1], slope.sum())
    torch.testing.assert_close(vmap(total)(torch.stack([z, 2 * z])), torch.stack([total(z), total(2 * z)]))
    torch.testing.assert_close(hessian(total)(z), torch.autograd.functional.hessian(total, z))


def test_the_bessel_function_has_all_its_slopes():
    z = torch.linspace(0.01, 90, 30, dtype=torch.float64).requires_grad_()
    checks = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(log_i0e, (z,), **checks)
    assert torch.autograd.gradgradcheck(log_i0e, (z[:14],), check_fwd_over_rev=True)
    many = 30 * torch.rand(3, 20_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(vmap(log_i0e, in_dims=1, out_dims=1)(many), log_i0e(many))


def test_points_come_in_the_precision_that_is_asked_for():
    single, double = (normal_points(256, 3, seed=0, dtype=t) for t in (torch.float32, torch.float64))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)
    torch.set_default_dtype(torch.float64)
    assert torch.equal(normal_points(256, 3, seed=0), single)
    d = a_mixture(LOC.double())
    assert d.transport(double).dtype == torch.float64
    assert d.marginal_quantile(0.3).dtype == torch.float64
