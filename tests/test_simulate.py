"""Simulated data follow the distributions that they claim."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, rice

from benchmarks.protocols import protocol
from benchmarks.truth import region_mass
from pyroqmri.errors import InputError
from pyroqmri.signals import MSDKI, SIGNALS, BallStick, BoundSignal, SignalModel
from pyroqmri.simulate import (
    CLASSES,
    GaussianClasses,
    add_noise,
    brain_phantom,
    cluster_classes,
    clusters,
    gaussian_classes,
    simulate,
    tissue,
    tissue_classes,
    uniform,
)

# Kolmogorov-Smirnov tests fail one seed in 1,000
KS_P = 1e-3


def test_same_seed_same_data():
    acq = protocol("A4")
    theta, labels = clusters(50, seed=3)
    again, labels_again = clusters(50, seed=3)
    other, _ = clusters(50, seed=4)
    assert all(torch.equal(theta[k], again[k]) for k in theta)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(theta["D"], other["D"])
    first, second, third = (simulate(MSDKI, acq, theta, snr=10, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    phantom, twin = (brain_phantom(BallStick, (16, 16, 3), seed=1) for _ in range(2))
    assert all(torch.equal(phantom.theta[k], twin.theta[k]) for k in phantom.theta)


@pytest.mark.parametrize(("noise", "second_moment"), [("gaussian", 1.0), ("rician", 2.0)])
def test_noise_has_its_second_moment(noise, second_moment):
    # E y^2 = S^2 + (1 or 2) sigma^2; 4 standard errors, so one seed in 16,000 fails
    theta = {"D": torch.full((40_000,), 2.5), "K": torch.zeros(40_000)}
    acq, sigma = protocol("A4"), 0.1
    clean = simulate(MSDKI, acq, theta, noise="none")
    y = simulate(MSDKI, acq, theta, sigma=sigma, noise=noise, seed=5)
    squares = (y.double() ** 2).numpy()
    expected = clean[0].double().numpy() ** 2 + second_moment * sigma**2
    assert (np.abs(squares.mean(0) - expected) < 4 * squares.std(0) / np.sqrt(len(squares))).all()
    assert (y < 0).any() == (noise == "gaussian")


def test_noise_of_either_kind_follows_its_distribution():
    clean, sigma = torch.full((400, 50), 0.3), torch.linspace(0.1, 0.3, 400)
    y = add_noise(clean, sigma, "gaussian", torch.Generator().manual_seed(1))
    assert kstest(((y - clean) / sigma[:, None]).flatten(), "norm").pvalue > KS_P
    y = add_noise(clean, 0.2, "rician", torch.Generator().manual_seed(1))
    assert kstest(y.flatten(), rice(1.5, scale=0.2).cdf).pvalue > KS_P
    twin = add_noise(clean, torch.full((400,), 0.2), "rician", torch.Generator().manual_seed(1))
    assert torch.equal(y, twin)


def test_no_noise_is_the_signal():
    acq = protocol("hcp")
    theta = uniform(BallStick, 20, seed=0)
    assert torch.equal(simulate(BallStick, acq, theta, noise="none"), BoundSignal(BallStick, acq)(theta))
    scaled = simulate(BallStick, acq, {**theta, "S0": torch.full((20,), 3.0)}, noise="none")
    torch.testing.assert_close(scaled, 3 * simulate(BallStick, acq, theta, noise="none"))


def test_sigma_may_differ_by_voxel():
    theta = {"D": torch.full((2000,), 0.5), "K": torch.zeros(2000)}
    sigma = torch.cat([torch.full((1000,), 0.01), torch.full((1000,), 0.1)])
    y = simulate(MSDKI, protocol("A4"), theta, sigma=sigma, noise="gaussian")
    ratio = y[1000:].std(0) / y[:1000].std(0)
    assert ((ratio > 8.5) & (ratio < 11.5)).all()


def test_wrong_calls_are_told():
    acq, theta = protocol("A4"), clusters(3, 0)[0]
    for call in (
        lambda: simulate(MSDKI, acq, theta),
        lambda: simulate(MSDKI, acq, theta, snr=10, sigma=0.1),
        lambda: simulate(MSDKI, acq, theta, sigma=-0.1),
        lambda: simulate(MSDKI, acq, theta, snr=10, noise="poisson"),
        lambda: simulate(MSDKI, acq, {"D": theta["D"]}, snr=10),
        lambda: clusters(3, 0, variant="other"),
        lambda: clusters(3, 0, classes=("bone",)),
        lambda: uniform(MSDKI, 3, 0, ranges={"f": (0, 1)}),
        lambda: gaussian_classes(MSDKI, 3, [{"D": 1.0}], [{"D": 1.0}], [1.0], 0),
        lambda: brain_phantom(BallStick, (3, 3, 1), 0),
        lambda: GaussianClasses(("a",), ("D",), [[1.0]], [[1.0]], [1.0], [50.0], [51.0]).sample(3, 0),
    ):
        with pytest.raises(InputError):
            call()


def test_clusters_follow_their_mixture():
    n = 40_000
    theta, labels = clusters(n, seed=1)
    assert (theta["D"] > 0.05).all()
    assert (theta["D"] * theta["K"] <= 2 + 1e-5).all()
    population = cluster_classes()
    edges = population.lower, population.upper, population.max_product
    mass = [region_mass(m, s, *edges) for m, s in zip(population.means, population.sds, strict=True)]
    share = population.weights * mass / (population.weights * mass).sum()
    found = np.bincount(labels, minlength=3) / n
    assert (np.abs(found - share) < 4 * np.sqrt(share * (1 - share) / n)).all()
    csf = theta["D"][labels == 2].numpy()
    assert kstest((csf - 3) / 0.1, "norm").pvalue > KS_P


def test_literal_clusters_are_unphysical():
    theta, labels = clusters(40_000, seed=1, variant="literal")
    found = np.bincount(labels, minlength=3) / 40_000
    np.testing.assert_allclose(found, np.array([0.5, 0.4, 1.0]) / 1.9, atol=0.01)
    tissue = {k: v[labels < 2] for k, v in theta.items()}
    above = simulate(MSDKI, protocol("A4"), tissue, noise="none")[:, -1] > 1
    assert 0.17 < above.float().mean() < 0.21
    assert (theta["D"] < 0).any()


def test_clusters_can_leave_a_class_out():
    theta, labels = clusters(5000, seed=0, classes=("white matter", "grey matter"))
    assert set(labels.tolist()) == {0, 1}
    assert theta["D"].max() < 3


def test_uniform_is_uniform():
    theta = uniform(BallStick, 5000, seed=2, ranges={"D_iso": (0.5, 1.0), "S0": (0.8, 1.2)})
    assert kstest((theta["D_iso"] - 0.5) / 0.5, "uniform").pvalue > KS_P
    assert kstest((theta["S0"] - 0.8) / 0.4, "uniform").pvalue > KS_P
    assert kstest(theta["f"], "uniform").pvalue > KS_P
    torch.testing.assert_close(theta["n"].norm(dim=1), torch.ones(5000))
    # each Cartesian coordinate of a uniform axis is uniform
    for i in range(3):
        assert kstest((theta["n"][:, i] + 1) / 2, "uniform").pvalue > KS_P


@pytest.mark.parametrize("name", SIGNALS)
def test_uniform_parameters_are_standard_normal_without_bounds(name):
    # whatever bounds depend on one another: the unconstrained coordinates say where in its bounds each parameter lies
    signal = SIGNALS[name]
    theta = {key: value.double() for key, value in uniform(signal, 4000, seed=1).items()}
    z = BoundSignal(signal, signal.default_protocol).unconstrain(theta).numpy()
    for column in z.T:
        assert kstest(column, "norm").pvalue > KS_P


@pytest.mark.parametrize("name", [name for name, signal in SIGNALS.items() if signal.typical_tissue])
def test_typical_tissue_is_drawn_around_its_means(name):
    signal = SIGNALS[name]
    theta, labels = tissue(signal, 6000, seed=0)
    assert set(theta) == {p.name for p in signal.parameters}
    for k, tissue_name in enumerate(CLASSES):
        for parameter, (mean, sd) in signal.typical_tissue[tissue_name].items():
            # truncation at a bound moves a mean by less than 0.6 sd
            assert abs(float(theta[parameter][labels == k].mean()) - mean) < 0.6 * sd


def test_a_signal_without_tissue_says_so():
    class Bare(SignalModel):
        requires = ("te",)
        parameters = SIGNALS["t2_decay"].parameters

        @staticmethod
        def signal(acq, T2):
            return torch.exp(-acq.te / T2)

    class Half(Bare):
        typical_tissue = {"white matter": {"T2": (80.0, 5.0)}}

        @staticmethod
        def signal(acq, T2):
            return torch.exp(-acq.te / T2)

    with pytest.raises(InputError, match="known for Bare: its typical_tissue lacks white matter, grey matter, csf"):
        brain_phantom(Bare, (16, 16, 1), 0)
    with pytest.raises(InputError, match="known for Half: its typical_tissue lacks grey matter, csf"):
        tissue(Half, 10, 0)
    assert uniform(Bare, 10, 0)["T2"].shape == (10,)


def test_gaussian_classes_stay_inside_the_bounds_and_have_directions():
    means = [{"f": 0.02, "D_par": 1.7, "D_iso": 1.0}, {"f": 0.6, "D_par": 1.7, "D_iso": 1.0}]
    sds = [{"f": 0.1, "D_par": 0.1, "D_iso": 0.1}] * 2
    theta, labels = gaussian_classes(BallStick, 4000, means, sds, [1, 1], seed=0)
    assert (theta["f"] > 0).all()
    assert theta["n"].shape == (4000, 3)
    assert kstest((theta["f"][labels == 1] - 0.6) / 0.1, "norm").pvalue > KS_P


def test_phantom_has_the_population_it_names():
    shape, seeds = (16, 16, 4), 150
    phantoms = [brain_phantom(BallStick, shape, seed) for seed in range(seeds)]
    # one white-matter voxel over many phantoms: independent draws
    where = tuple(torch.nonzero(phantoms[0].labels == 1)[0].tolist())
    f = np.array([p.theta["f"][where] for p in phantoms])
    n = np.stack([p.theta["n"][where].numpy() for p in phantoms])
    table = tissue_classes(BallStick)
    mean, sd = (getattr(table, k)[0, table.parameters.index("f")] for k in ("means", "sds"))
    assert kstest((f - mean) / sd, "norm").pvalue > KS_P
    for i in range(3):
        assert kstest((n[:, i] + 1) / 2, "uniform").pvalue > KS_P


def test_phantom_is_a_smooth_brain():
    phantom = brain_phantom(BallStick, (40, 40, 6), seed=0)
    counts = torch.bincount(phantom.labels.flatten().long(), minlength=4)
    assert (counts[1:] > 0.1 * counts[1:].sum()).all()
    neighbours = (phantom.theta["n"][:-1] * phantom.theta["n"][1:]).sum(-1)
    both = phantom.mask[:-1] & phantom.mask[1:]
    assert neighbours[both].mean() > 0.8  # independent axes would give 0
    assert (phantom.theta["f"][~phantom.mask] == 0).all()
    voxels = phantom.voxels()
    y = simulate(BallStick, protocol("demo"), voxels, snr=20)
    assert y.shape == (int(phantom.mask.sum()), 103)
    assert brain_phantom(MSDKI, (16, 16, 1), seed=0).theta["D"].shape == (16, 16, 1)


@pytest.mark.parametrize(("name", "n"), [("A288", 288), ("A4", 4), ("epstein", 10), ("hcp", 288), ("demo", 103)])
def test_protocols(name, n):
    assert len(protocol(name)) == n


def test_protocol_directions_are_spread():
    acq = protocol("ball_stick_90")
    on = acq.bval > 0
    assert on.sum() == 90
    assert (acq.bvec[~on] == 0).all()
    for b in (1.0, 2.0, 3.0):
        g = acq.bvec[(acq.bval - b).abs() < 1e-6]
        torch.testing.assert_close(g.norm(dim=1), torch.ones(30))
        nearest = (g @ g.T).abs().fill_diagonal_(0).amax(1)
        assert torch.rad2deg(torch.acos(nearest)).min() > 13
    with pytest.raises(InputError, match="unknown"):
        protocol("A5")
