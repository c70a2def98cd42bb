"""What every signal keeps to. A new signal adds one entry to CASES: its equation once more, in numpy."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.parameter import Direction, Parameter, frame_around
from pyroqmri.signals import SIGNALS, BoundSignal, SignalModel, mp2rage_acquisition
from pyroqmri.simulate import CLASSES
from tests.helpers import shells


@dataclass(frozen=True)
class Case:
    """A protocol, the equation in numpy over columns ``(N, 1)``, and what physics says of the signal.

    ``unencoded`` is a protocol at which the signal is S0; ``falls`` or ``rises`` is the setting with which it does so
    all over the box. Per-voxel inputs of the signal are taken between 0.7 and 1.3.
    """

    acquisition: Acquisition
    equation: Callable[..., np.ndarray]
    unencoded: Acquisition | None = None
    falls: str | None = None
    rises: str | None = None
    error: float = 1e-12  # that the signal states of itself, where it is a series


def msdki(bval, D, K):
    signal = np.exp(-bval * D + bval**2 * D**2 * K / 6)
    # beyond 20 times S0 the tangent
    return np.where(signal < np.exp(3), signal, np.exp(3) * (-bval * D + bval**2 * D**2 * K / 6 - 2))


def ball_stick(bval, bvec, f, D_par, D_iso, n):
    cosine = np.einsum("nji,mi->nm", n, bvec)
    return f * np.exp(-bval * D_par * cosine**2) + (1 - f) * np.exp(-bval * D_iso)


def ball_sticks(bval, bvec, D, f1, f2, f3, n1, n2, n3):
    found = (1 - f1 - f2 - f3) * np.exp(-bval * D)
    for f, n in ((f1, n1), (f2, n2), (f3, n3)):
        found = found + f * np.exp(-bval * D * np.einsum("nji,mi->nm", n, bvec) ** 2)
    return found


def ball_sticks_gamma(bval, bvec, D, D_std, f1, f2, f3, n1, n2, n3):
    def mean(x):
        """Of exp(-x d) over a gamma distribution of d: its moment-generating function."""
        return (1 + x * D_std**2 / D) ** (-((D / D_std) ** 2))

    along = [f * mean(bval * np.einsum("nji,mi->nm", n, bvec) ** 2) for f, n in ((f1, n1), (f2, n2), (f3, n3))]
    return (1 - f1 - f2 - f3) * mean(bval) + sum(along)


def dti(bval, bvec, Dxx, Dyy, Dzz, Dxy, Dxz, Dyz):
    tensor = np.stack([Dxx, Dxy, Dxz, Dxy, Dyy, Dyz, Dxz, Dyz, Dzz], -1).reshape(-1, 3, 3)
    return np.exp(-bval * np.einsum("mi,nij,mj->nm", bvec, tensor, bvec))


def noddi(bval, bvec, NDI, ODI, FWF, D_par, D_iso, n):
    """The integral over sticks by quadrature on the sphere, the polar angle being that from the mean axis."""
    cosine = np.einsum("nji,mi->nm", n, bvec)
    t, w = np.polynomial.legendre.leggauss(48)
    t, w = (t + 1) / 2, w * np.exp((((t + 1) / 2) ** 2 - 1) / np.tan(np.pi / 2 * ODI))
    w = w / w.sum(-1, keepdims=True)
    sticks = 0
    for phi in np.arange(24) * 2 * np.pi / 24:
        across = np.sqrt(1 - np.minimum(cosine**2, 1))[..., None] * np.sqrt(1 - t**2) * np.cos(phi)
        along = cosine[..., None] * t + across
        sticks = sticks + np.einsum("nk,nmk->nm", w, np.exp(-(bval * D_par)[..., None] * along**2)) / 24
    tau = (w * t**2).sum(-1, keepdims=True)
    mean = D_par * (1 - NDI) + D_par * NDI * (tau * cosine**2 + (1 - tau) / 2 * (1 - cosine**2))
    return FWF * np.exp(-bval * D_iso) + (1 - FWF) * (NDI * sticks + (1 - NDI) * np.exp(-bval * mean))


def dki(bval, bvec, Dxx, Dyy, Dzz, Dxy, Dxz, Dyz, **W):
    D = np.stack([Dxx, Dxy, Dxz, Dxy, Dyy, Dyz, Dxz, Dyz, Dzz], -1).reshape(-1, 3, 3)
    fourth = sum(
        W["W" + "".join(sorted("xyz"[i] for i in at))] * np.prod(bvec[:, at], -1) for at in np.ndindex(3, 3, 3, 3)
    )
    mean = np.trace(D, axis1=1, axis2=2)[:, None] / 3
    exponent = -bval * np.einsum("mi,nij,mj->nm", bvec, D, bvec) + bval**2 / 6 * mean**2 * fourth
    return np.where(exponent < 3, np.exp(exponent), np.exp(3) * (exponent - 2))


def fwdti(bval, bvec, FWF, **elements):
    return FWF * np.exp(-3 * bval) + (1 - FWF) * dti(bval, bvec, **elements)


def adc(bval, D):
    return np.exp(-bval * D)


def ivim(bval, f, D_fast, D_slow):
    return f * np.exp(-bval * (D_fast + D_slow)) + (1 - f) * np.exp(-bval * D_slow)


def t2_adc(bval, te, T2, D):
    return np.exp(-bval * D) * np.exp(-te / T2)


def t2_decay(te, T2):
    return np.exp(-te / T2)


def t2star_decay(te, T2star):
    return np.exp(-te / T2star)


def t2_epg(te, T2, B1):
    """Spins that precess by different angles between pulses about the axis that they lie along, one by one."""
    phase = 2 * np.pi * np.arange(32) / 32
    x, y, z = np.zeros((len(T2), 32)), np.ones((len(T2), 32)), np.zeros((len(T2), 32))
    E1, E2, angle, seen = np.exp(-te[0] / 2000), np.exp(-te[0] / (2 * T2)), np.pi * B1, []
    for _ in te:
        for pulse in (True, False):
            x, y = E2 * (x * np.cos(phase) - y * np.sin(phase)), E2 * (x * np.sin(phase) + y * np.cos(phase))
            z = E1 * z
            if pulse:
                x, z = x * np.cos(angle) + z * np.sin(angle), z * np.cos(angle) - x * np.sin(angle)
        seen.append(y.mean(1))
    return np.stack(seen, 1)


def mwf(te, MWF, T2_my, T2_ie, FWF, T2_fw, B1):
    pools = ((MWF, T2_my), ((1 - MWF) * (1 - FWF), T2_ie), ((1 - MWF) * FWF, T2_fw))
    return sum(share * t2_epg(te, T2, B1) for share, T2 in pools)


def t2_floor(te, T2, floor):
    return np.exp(-te / T2) + floor


def t2_biexp(te, f, T2_short, T2_long):
    return f * np.exp(-te / T2_short) + (1 - f) * np.exp(-te / T2_long)


def t1_inversion_signed(ti, T1, inv_eff, tr):
    """Steady state of inversion by an angle whose cosine is 1 - 2 eta, and recovery towards 1 from there."""
    before = 1 - np.exp(-(tr - ti) / T1)
    return 1 - np.exp(-ti / T1) + (1 - 2 * inv_eff) * before * np.exp(-ti / T1)


def t1_inversion(ti, T1, inv_eff, tr):
    return np.abs(t1_inversion_signed(ti, T1, inv_eff, tr))


def t1_inversion_ab_signed(ti, T1, a, b):
    return a + b * np.exp(-ti / T1)


def t1_inversion_ab(ti, T1, a, b):
    return np.abs(t1_inversion_ab_signed(ti, T1, a, b))


def t1_looklocker(ti, T1star, b_over_a):
    """From the inverted level, 1 - B/A, towards 1."""
    return np.abs((1 - b_over_a) * np.exp(-ti / T1star) + 1 - np.exp(-ti / T1star))


def t1_vfa(flip, tr, T1, B1):
    decay = np.exp(-tr / T1)
    return np.sin(B1 * flip) * (1 - decay) / (1 - np.cos(B1 * flip) * decay)


def mp2rage(readout, ti, flip, ti_other, flip_other, tr, tr_readout, shots_before, shots_after, T1, B1):
    """Pulse by pulse from equilibrium, 30 cycles on; of the pair, whose first entry has the times of both trains."""
    T1, B1, seen = T1[:, 0], B1[:, 0], [0.0, 0.0]
    before, after = int(shots_before[0]), int(shots_after[0])
    times, flips, m = (ti[0], ti_other[0]), (flip[0], flip_other[0]), np.ones_like(T1)
    for _ in range(30):
        m, clock = -0.96 * m, 0.0
        for i in range(2):
            start = times[i] - before * tr_readout[0]
            m = 1 + (m - 1) * np.exp(-(start - clock) / T1)
            for k in range(before + after):
                seen[i] = m * np.sin(B1 * flips[i]) if k == before else seen[i]
                m = 1 + (m * np.cos(B1 * flips[i]) - 1) * np.exp(-tr_readout[0] / T1)
            clock = times[i] + after * tr_readout[0]
        m = 1 + (m - 1) * np.exp(-(tr[0] - clock) / T1)
    return np.stack(seen, 1)


def mpm(te, tr, flip, mt, R1, R2star, MTsat, B1):
    """The fixed point of one repetition: saturation, excitation, recovery."""
    left = 1 - mt * MTsat / 100 * B1**2 * (1 - 0.4 * B1) / 0.6
    decay = np.exp(-tr * R1 / 1000)
    before = (1 - decay) / (1 - decay * np.cos(B1 * flip) * left)
    return before * left * np.sin(B1 * flip) * np.exp(-te * R2star / 1000)


def wassr(offset, A, w, shift):
    return 1 - A / (1 + 4 * (offset - shift) ** 2 / w**2)


def cest_lorentz(offset, shift, B0, **pools):
    centres = {"water": 0, "amide": 3.5, "noe": -3.5, "mt": -2.5}
    x = {k: 2 * (offset - shift - B0 - centre) / pools[f"w_{k}"] for k, centre in centres.items()}
    return 1 - sum(pools[f"A_{k}"] / (1 + x[k] ** 2) for k in centres)


INVERSIONS = Acquisition(ti=[50.0, 100, 200, 500, 2000, 4000], tr=[5000.0] * 6)
RECOVERED = Acquisition(ti=[1e5, 1e5], tr=[1e6, 1e6])
ECHOES = Acquisition(te=[10.0, 25, 50, 90, 150, 250])
GRADIENT_ECHOES = Acquisition(te=[0.5, 1.5, 4, 10, 25, 60])
FLIPS = Acquisition(flip=[0.05, 0.1, 0.2, 0.35, 0.5], tr=[15.0] * 5)
CONTRASTS = Acquisition(
    te=[2.3, 9, 20] * 3, tr=[25.0] * 9, flip=np.radians([6] * 3 + [21] * 3 + [6] * 3), mt=[0] * 6 + [1] * 3
)
UNTOUCHED = Acquisition(te=[0.0], tr=[1e6], flip=[torch.pi / 2], mt=[0.0])
TRAINS = mp2rage_acquisition((700.0, 2500.0), (0.07, 0.09), 5000.0, 7.0, (60, 80), uniform=False)
OFFSETS = Acquisition(offset=torch.cat([torch.tensor([300.0]), torch.linspace(-6, 6, 25)]))

CASES = {
    "msdki": Case(shells(2, 3, 1.0, 2.0, 3.0), msdki, shells(3, 0)),
    "ball_stick": Case(shells(2, 20, 1.0, 3.0), ball_stick, shells(3, 0), falls="bval"),
    "dti": Case(shells(2, 12, 1.0, 2.0), dti, shells(3, 0), falls="bval"),
    "t2_adc": Case(Acquisition(bval=[0.0, 0.0, 1, 1], te=[60.0, 0.05, 60, 0.05]), t2_adc, falls="bval"),
    "t1_inversion": Case(INVERSIONS, t1_inversion, RECOVERED),
    "t1_inversion_signed": Case(INVERSIONS, t1_inversion_signed, RECOVERED, rises="ti"),
    "t1_inversion_ab": Case(INVERSIONS, t1_inversion_ab),
    "t1_inversion_ab_signed": Case(INVERSIONS, t1_inversion_ab_signed, rises="ti"),
    "t1_looklocker": Case(INVERSIONS, t1_looklocker, RECOVERED),
    "t1_vfa": Case(FLIPS, t1_vfa, Acquisition(flip=[torch.pi / 2], tr=[1e6])),
    "t1_vfa_free_b1": Case(FLIPS, t1_vfa),
    "t2_decay": Case(ECHOES, t2_decay, Acquisition(te=[0.0, 0.0]), falls="te"),
    "t2star_decay": Case(GRADIENT_ECHOES, t2star_decay, Acquisition(te=[0.0, 0.0]), falls="te"),
    "t2_epg": Case(Acquisition(te=[10.0, 20, 30, 40, 50, 60]), t2_epg),
    "t2_epg_given_b1": Case(Acquisition(te=[10.0, 20, 30, 40, 50, 60]), t2_epg),
    "mwf": Case(Acquisition(te=[10.0, 20, 30, 40, 50, 60, 70, 80]), mwf),
    "t2_floor": Case(ECHOES, t2_floor, falls="te"),
    "t2_biexp": Case(ECHOES, t2_biexp, Acquisition(te=[0.0, 0.0]), falls="te"),
    "mp2rage": Case(TRAINS, mp2rage),
    "mp2rage_free_b1": Case(TRAINS, mp2rage),
    "mpm": Case(CONTRASTS, mpm, UNTOUCHED, falls="te"),
    "cest_lorentz": Case(OFFSETS, cest_lorentz, Acquisition(offset=[1e5, -1e5])),
    "wassr": Case(Acquisition(offset=torch.linspace(-1, 1, 11)), wassr, Acquisition(offset=[1e5, -1e5])),
    "dki": Case(shells(2, 25, 1.0, 2.0), dki, shells(3, 0)),
    "fwdti": Case(shells(2, 12, 0.5, 1.5), fwdti, shells(3, 0), falls="bval"),
    "ball_sticks": Case(shells(2, 12, 1.0, 2.0, 3.0), ball_sticks, shells(3, 0), falls="bval"),
    "ball_sticks_gamma": Case(shells(2, 12, 1.0, 2.0, 3.0), ball_sticks_gamma, shells(3, 0), falls="bval"),
    "noddi": Case(shells(2, 6, 1.0, 2.0), noddi, shells(3, 0), falls="bval", error=1e-7),
    "adc": Case(shells(2, 3, 0.5, 1.0), adc, shells(3, 0), falls="bval"),
    "ivim": Case(shells(1, 1, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8), ivim, shells(3, 0), falls="bval"),
}

EVERY = pytest.mark.parametrize("name", SIGNALS)


def theta_over_the_box(signal: BoundSignal, n: int = 512) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sobol points of the unconstrained box, its far corners among them, and frames for a direction."""
    points = torch.quasirandom.SobolEngine(signal.n_latents, scramble=True, seed=0).draw(n).clamp(1e-6, 1 - 1e-6)
    generator = torch.Generator().manual_seed(0)
    edges = torch.tensor([-9.0, 0.0, 9.0])
    if signal.n_latents <= 9:
        corners = torch.cartesian_prod(*[edges] * signal.n_latents).view(-1, signal.n_latents)
    else:  # too many to take them all
        corners = edges[torch.randint(3, (2000, signal.n_latents), generator=generator)]
    z = torch.cat([torch.special.ndtri(points), corners])
    axes = torch.randn(len(z), max(1, len(signal.directions)), 3, generator=generator).squeeze(1)
    return z, frame_around(axes) if signal.direction else None


def bound(name: str, acquisition: Acquisition | None = None) -> BoundSignal:
    return BoundSignal(SIGNALS[name], CASES[name].acquisition if acquisition is None else acquisition)


def simulate(signal: BoundSignal, z: torch.Tensor, frame: torch.Tensor | None) -> torch.Tensor:
    """Signals of latents, with per-voxel inputs that differ."""
    inputs = {name: torch.linspace(0.7, 1.3, z.shape[-2], dtype=z.dtype) for name in signal.signal.inputs}
    return signal(signal.constrain(z, frame), inputs)


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
    used = (*signal.signal.requires, *signal.signal.optional)
    settings = {k: v.numpy() for k, v in signal.acquisition.settings().items() if k in used}
    inputs = {k: np.linspace(0.7, 1.3, len(z))[:, None] for k in signal.signal.inputs}
    with np.errstate(over="ignore"):
        reference = CASES[name].equation(**settings, **columns, **inputs)
    found = simulate(signal, z.double(), None if frame is None else frame.double())
    np.testing.assert_allclose(found, reference, rtol=1e-9, atol=CASES[name].error)


@EVERY
def test_without_encoding_it_is_s0(name):
    if (unencoded := CASES[name].unencoded) is None:
        pytest.skip("this signal is never free of encoding")
    signal = bound(name, unencoded)
    z, frame = theta_over_the_box(signal)
    values = signal(signal.constrain(z, frame))  # B1 is 1, as it is where nothing is said
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-6)


@EVERY
def test_signals_and_slopes_are_finite_all_over_the_box(name):
    signal = bound(name)
    z, frame = theta_over_the_box(signal)
    z.requires_grad_()
    values = simulate(signal, z, frame)
    assert values.shape == (len(z), len(signal.acquisition))
    assert torch.isfinite(values).all()
    assert torch.isfinite(torch.autograd.grad(values.sum(), z)[0]).all()


@EVERY
def test_slopes_are_those_of_finite_differences(name):
    signal = bound(name).double()
    z, frame = theta_over_the_box(signal, 64)
    z, frame = z[:64].double(), None if frame is None else frame[:64].double()

    step = 1e-6
    for i in range(signal.n_latents):
        e = torch.eye(signal.n_latents, dtype=torch.float64)[i].expand_as(z)
        slope = torch.func.jvp(lambda u: simulate(signal, u, frame), (z,), (e,))[1]
        difference = (simulate(signal, z + step * e, frame) - simulate(signal, z - step * e, frame)) / (2 * step)
        torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-6 * float(difference.abs().max()))


@EVERY
def test_a_formula_for_slopes_is_right(name):
    signal = bound(name).double()
    if signal.signal.slopes is SignalModel.slopes:
        pytest.skip("this signal has no formula for its slopes")
    z, frame = theta_over_the_box(signal, 64)
    z, frame = z[:64].double(), None if frame is None else frame[:64].double()
    inputs = {name: torch.linspace(0.7, 1.3, len(z), dtype=z.dtype) for name in signal.signal.inputs}
    values, slopes = signal.unconstrained_slopes(z, frame, inputs)
    torch.testing.assert_close(values, simulate(signal, z, frame))
    for i in range(signal.n_latents):
        e = torch.eye(signal.n_latents, dtype=torch.float64)[i].expand_as(z)
        expected = torch.func.jvp(lambda u: simulate(signal, u, frame), (z,), (e,))[1]
        torch.testing.assert_close(slopes[..., i], expected, rtol=1e-7, atol=1e-8)


@EVERY
def test_no_parameter_goes_unseen(name):
    signal = bound(name)
    z, frame = theta_over_the_box(signal, 64)
    z, frame = z[:64], None if frame is None else frame[:64]
    for i in range(signal.n_latents):
        moved = z.clone()
        moved[:, i] += 0.5
        change = simulate(signal, moved, frame) - simulate(signal, z, frame)
        assert change.abs().amax(-1).median() > 1e-4, signal.free


@EVERY
def test_it_falls_or_rises_where_physics_says_so(name):
    case = CASES[name]
    setting = case.falls if case.rises is None else case.rises
    if setting is None:
        pytest.skip("this signal may rise and fall somewhere in its box")
    settings = {k: v[-1:].expand(40, *v.shape[1:]) for k, v in case.acquisition.settings().items()}
    settings[setting] = torch.linspace(0, 2 * float(case.acquisition.settings()[setting].max()), 40)
    signal = bound(name, Acquisition(**settings))
    z, frame = theta_over_the_box(signal)
    change = simulate(signal, z, frame).diff(dim=-1) * (-1 if case.rises is None else 1)
    assert (change >= -1e-6).all()
    assert (change.sum(-1) > 1e-6).float().mean() > 0.95


@EVERY
def test_draws_lead_and_measurements_trail(name):
    signal = bound(name)
    z, frame = theta_over_the_box(signal, 8)
    z, frame = z[:8], None if frame is None else frame[:8]
    draws = torch.stack([z, z + 0.1, z - 0.1])
    values = simulate(signal, draws, frame)
    assert values.shape == (3, 8, len(signal.acquisition))
    torch.testing.assert_close(values[0], simulate(signal, z, frame))


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
        bound(name, Acquisition(tr=[1.0, 2.0]))


@EVERY
def test_bounds_that_depend_on_one_another_hold_and_turn_back(name):
    signal = bound(name).double()
    z, frame = theta_over_the_box(signal)
    z = z[:512].double()
    theta = signal.constrain(z, None if frame is None else frame[:512].double())
    torch.testing.assert_close(signal.unconstrain(theta), z[:, : signal.n_tissue], atol=1e-3, rtol=0)
    for p in signal.tissue:
        assert (theta[p.name] >= p.lower).all()
        assert (theta[p.name] <= p.upper).all()


@EVERY
def test_its_default_protocol_can_be_simulated_and_tells_its_parameters_apart(name):
    protocol = SIGNALS[name].default_protocol
    assert protocol is not None
    signal = bound(name, protocol).double()
    z, frame = theta_over_the_box(signal, 64)
    z, frame = torch.zeros(1, signal.n_latents).double(), None if frame is None else frame[:1].double()
    slopes = torch.func.jacrev(lambda u: simulate(signal, u, frame)[0])(z)[:, 0]
    assert torch.linalg.matrix_rank(slopes, rtol=1e-6) == signal.n_latents


@EVERY
def test_its_typical_tissue_is_inside_its_bounds(name):
    table = {p.name: p for p in SIGNALS[name].parameters}
    assert set(SIGNALS[name].typical_tissue) in (set(), set(CLASSES))
    for tissue in SIGNALS[name].typical_tissue.values():
        for parameter, (mean, sd) in tissue.items():
            assert table[parameter].lower < mean < table[parameter].upper
            assert 0 < sd < table[parameter].upper - table[parameter].lower


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


def test_a_default_protocol_or_tissue_that_does_not_match_is_a_type_error():
    declared = declare((D,))
    fine = {"default_protocol": shells(1, 6, 1.0), "typical_tissue": {"csf": {"D": (3.0, 0.1)}}}
    assert type("Fine", (declared,), fine | {"signal": staticmethod(lambda acq, D: D)}).default_protocol is not None
    for wrong in ({"default_protocol": ECHOES}, {"typical_tissue": {"csf": {"T2": (3.0, 0.1)}}}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            type("Wrong", (declared,), wrong)
