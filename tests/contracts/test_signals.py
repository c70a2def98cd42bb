"""What every signal keeps to. A new signal adds one entry to CASES: its equation once more, in numpy."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.parameter import Direction, Parameter, frame_around
from pyroqmri.signals import SIGNALS, BoundSignal, SignalModel
from tests.helpers import shells


@dataclass(frozen=True)
class Case:
    """A protocol, the equation in numpy over columns ``(N, 1)``, and what physics says of the signal.

    ``unencoded`` is a protocol at which the signal is S0, ``falls_with_b`` whether it falls all over the box.
    """

    acquisition: Acquisition
    equation: Callable[..., np.ndarray]
    unencoded: Acquisition | None = None
    falls_with_b: bool = False


def msdki(bval, D, K):
    signal = np.exp(-bval * D + bval**2 * D**2 * K / 6)
    # beyond 20 times S0 the tangent
    return np.where(signal < np.exp(3), signal, np.exp(3) * (-bval * D + bval**2 * D**2 * K / 6 - 2))


def ball_stick(bval, bvec, f, D_par, D_iso, n):
    cosine = np.einsum("nji,mi->nm", n, bvec)
    return f * np.exp(-bval * D_par * cosine**2) + (1 - f) * np.exp(-bval * D_iso)


def dti(bval, bvec, Dxx, Dyy, Dzz, Dxy, Dxz, Dyz):
    tensor = np.stack([Dxx, Dxy, Dxz, Dxy, Dyy, Dyz, Dxz, Dyz, Dzz], -1).reshape(-1, 3, 3)
    return np.exp(-bval * np.einsum("mi,nij,mj->nm", bvec, tensor, bvec))


def ivim(bval, f, D_fast, D_slow):
    return f * np.exp(-bval * (D_fast + D_slow)) + (1 - f) * np.exp(-bval * D_slow)


CASES = {
    "msdki": Case(shells(2, 3, 1.0, 2.0, 3.0), msdki, shells(3, 0)),
    "ball_stick": Case(shells(2, 20, 1.0, 3.0), ball_stick, shells(3, 0), falls_with_b=True),
    "dti": Case(shells(2, 12, 1.0, 2.0), dti, shells(3, 0), falls_with_b=True),
    "ivim": Case(shells(1, 1, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8), ivim, shells(3, 0), falls_with_b=True),
}

EVERY = pytest.mark.parametrize("name", SIGNALS)


def theta_over_the_box(signal: BoundSignal, n: int = 512) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sobol points of the unconstrained box, its far corners among them, and frames for a direction."""
    points = torch.quasirandom.SobolEngine(signal.n_latents, scramble=True, seed=0).draw(n).clamp(1e-6, 1 - 1e-6)
    corners = torch.cartesian_prod(*[torch.tensor([-9.0, 0.0, 9.0])] * signal.n_latents)
    z = torch.cat([torch.special.ndtri(points), corners.view(-1, signal.n_latents)])
    generator = torch.Generator().manual_seed(0)
    return z, frame_around(torch.randn(len(z), 3, generator=generator)) if signal.direction else None


def bound(name: str, acquisition: Acquisition | None = None) -> BoundSignal:
    return BoundSignal(SIGNALS[name], CASES[name].acquisition if acquisition is None else acquisition)


def test_every_signal_has_a_case():
    assert set(CASES) == set(SIGNALS)


@EVERY
def test_the_table_says_what_files_and_axes_need(name):
    signal = SIGNALS[name]
    assert signal.__doc__
    assert ".. math::" in signal.__doc__
    assert signal.source.startswith("doi:") or signal.source.startswith("arXiv:")
    for parameter in (*signal.parameters, *signal.derived_parameters):
        assert parameter.symbol
        assert parameter.unit
        assert parameter.doc
    names = [p.name for p in (*signal.parameters, *signal.derived_parameters)]
    assert len(set(names)) == len(names)
    assert all(isinstance(p, Parameter | Direction) for p in signal.parameters)


@EVERY
def test_it_is_its_equation(name):
    signal = bound(name).double()
    z, frame = theta_over_the_box(signal)
    theta = signal.constrain(z.double(), None if frame is None else frame.double())
    columns = {p.name: theta[p.name].unsqueeze(-2 if p.is_direction else -1).numpy() for p in signal.signal.parameters}
    settings = {k: v.numpy() for k, v in signal.acquisition.settings().items() if k in signal.signal.requires}
    with np.errstate(over="ignore"):
        reference = CASES[name].equation(**settings, **columns)
    np.testing.assert_allclose(signal(theta), reference, rtol=1e-9)


@EVERY
def test_without_encoding_it_is_s0(name):
    if (unencoded := CASES[name].unencoded) is None:
        pytest.skip("this signal is never free of encoding")
    signal = bound(name, unencoded)
    z, frame = theta_over_the_box(signal)
    values = signal(signal.constrain(z, frame))
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-6)


@EVERY
def test_signals_and_slopes_are_finite_all_over_the_box(name):
    signal = bound(name)
    z, frame = theta_over_the_box(signal)
    z.requires_grad_()
    values = signal(signal.constrain(z, frame))
    assert values.shape == (len(z), len(signal.acquisition))
    assert torch.isfinite(values).all()
    assert torch.isfinite(torch.autograd.grad(values.sum(), z)[0]).all()


@EVERY
def test_slopes_are_those_of_finite_differences(name):
    signal = bound(name).double()
    z, frame = theta_over_the_box(signal, 64)
    z, frame = z[:64].double(), None if frame is None else frame[:64].double()

    def simulate(u):
        return signal(signal.constrain(u, frame))

    step = 1e-6
    for i in range(signal.n_latents):
        e = torch.eye(signal.n_latents, dtype=torch.float64)[i].expand_as(z)
        slope = torch.func.jvp(simulate, (z,), (e,))[1]
        difference = (simulate(z + step * e) - simulate(z - step * e)) / (2 * step)
        torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-6 * float(difference.abs().max()))


@EVERY
def test_no_parameter_goes_unseen(name):
    signal = bound(name)
    z, frame = theta_over_the_box(signal, 64)
    z, frame = z[:64], None if frame is None else frame[:64]
    for i in range(signal.n_latents):
        moved = z.clone()
        moved[:, i] += 0.5
        change = signal(signal.constrain(moved, frame)) - signal(signal.constrain(z, frame))
        assert change.abs().amax(-1).median() > 1e-4, signal.free


@EVERY
def test_it_falls_with_b_where_physics_says_so(name):
    if not CASES[name].falls_with_b:
        pytest.skip("this signal may rise with b somewhere in its box")
    bval = torch.linspace(0, 6, 40)
    bvec = torch.nn.functional.normalize(torch.tensor([1.0, -0.4, 0.7]), dim=0).expand(40, 3)
    signal = bound(name, Acquisition(bval=bval, bvec=bvec))
    z, frame = theta_over_the_box(signal)
    values = signal(signal.constrain(z, frame))
    assert (values.diff(dim=-1) <= 1e-7).all()
    assert (values[:, -1] < values[:, 0]).float().mean() > 0.99


@EVERY
def test_draws_lead_and_measurements_trail(name):
    signal = bound(name)
    z, frame = theta_over_the_box(signal, 8)
    z, frame = z[:8], None if frame is None else frame[:8]
    draws = torch.stack([z, z + 0.1, z - 0.1])
    values = signal(signal.constrain(draws, frame))
    assert values.shape == (3, 8, len(signal.acquisition))
    torch.testing.assert_close(values[0], signal(signal.constrain(z, frame)))


@EVERY
def test_derived_quantities_are_those_that_are_declared(name):
    signal = bound(name)
    z, frame = theta_over_the_box(signal)
    derived = signal.signal.derived(signal.constrain(z, frame))
    assert set(derived) == {p.name for p in signal.signal.derived_parameters}
    for parameter in signal.signal.derived_parameters:
        value = derived[parameter.name]
        if isinstance(parameter, Direction):
            torch.testing.assert_close(value.norm(dim=-1), torch.ones(len(z)))
            continue
        assert value.shape == z.shape[:1]
        assert value.min() >= parameter.lower - 1e-5
        assert value.max() <= parameter.upper + 1e-5


@EVERY
def test_a_setting_that_is_missing_is_said(name):
    with pytest.raises(InputError, match="needs"):
        bound(name, Acquisition(ti=[1.0, 2.0]))


D = Parameter("D", "D", "um2/ms", 0.0, 3.0, "diffusivity")
K = Parameter("K", "K", "1", 0.0, 3.0, "kurtosis")


def declare(parameters: tuple[Parameter, ...], inputs: tuple[str, ...] = ()) -> type:
    """A signal with the arguments (acq, D) and any table."""
    content = {"parameters": parameters, "inputs": inputs, "signal": staticmethod(lambda acq, D: D)}
    return type("Declared", (SignalModel,), {"requires": ("bval",), **content})


@pytest.mark.parametrize(("parameters", "inputs"), [((K,), ()), ((D, K), ()), ((D,), ("b1",)), ((), ()), ((), ("K",))])
def test_a_table_that_does_not_match_the_signal_is_a_type_error(parameters, inputs):
    assert issubclass(declare((D,)), SignalModel)
    with pytest.raises(TypeError, match="does not match signal"):
        declare(parameters, inputs)
