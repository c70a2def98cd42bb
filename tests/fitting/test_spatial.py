"""Recipe spatial: images of MS-DKI written in numpy, fitted, placed, saved and refused."""

import numpy as np
import pytest
import torch
from pyro import poutine

import pyroqmri as pq
from pyroqmri.calibration.check import recalibrate
from pyroqmri.calibration.stress import stress
from pyroqmri.errors import InputError
from pyroqmri.misfit.blur import blur_of
from pyroqmri.priors import Gmrf
from pyroqmri.priors.base import Prior

SIZE, SIGMA = 16, 1 / 12
ACQ = pq.Acquisition(bval=np.repeat([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], [4, 6, 6, 6, 6, 6]))
PLACE = np.argwhere(np.ones((SIZE, SIZE, 1)))
FEW = {"training.steps": 20, "prior.rounds": 5}
LESION = (PLACE[:, 0] == 4) & (PLACE[:, 1] >= 5) & (PLACE[:, 1] <= 7)


def tissue() -> dict[str, np.ndarray]:
    """Two regions with an oblique border, each with a slope, and a lesion of 3 voxels, as columns ``(N, 1)``."""
    x, y = PLACE[:, :1], PLACE[:, 1:2]
    left = x + 0.3 * y < 10
    d, k = np.where(left, 0.8, 1.2) + 0.004 * y, np.where(left, 1.0, 0.6) + 0.004 * x
    return {"D": np.where(LESION[:, None], 1.4 * d, d), "K": np.where(LESION[:, None], 0.6 * k, k)}


def scan(theta: dict[str, np.ndarray], seed: int = 0, shared: float = 0.0) -> np.ndarray:
    """Magnitudes ``(N, M)``, of whose noise neighbours share so much as interpolation between them leaves."""
    b = ACQ.bval.numpy()
    signal = np.exp(-b * theta["D"] + b**2 * theta["D"] ** 2 * theta["K"] / 6)
    noise = np.random.default_rng(seed).standard_normal((2, SIZE + 1, SIZE + 1, len(b))) * SIGMA
    noise = (noise[:, 1:] + shared * noise[:, :-1]) / np.hypot(1, shared)
    noise = (noise[:, :, 1:] + shared * noise[:, :, :-1]) / np.hypot(1, shared)
    noise = noise.reshape(2, SIZE**2, -1)[:, : len(signal)]
    return 1000 * np.hypot(signal + noise[0], noise[1])


def fitted(y: np.ndarray, recipe: str = "spatial", place: np.ndarray = PLACE) -> pq.Fit:
    where = {"voxels": place} if recipe == "spatial" else {}
    settings = FEW if recipe == "spatial" else {"training.steps": 20}
    return pq.fit(y, ACQ, signal="msdki", recipe=recipe, sigma=1000 * SIGMA, settings=settings, **where)


@pytest.fixture(scope="module")
def image() -> tuple[dict[str, np.ndarray], np.ndarray, pq.Fit]:
    theta = tissue()
    y = scan(theta)
    return theta, y, fitted(y)


def test_neighbours_make_maps_better_and_intervals_right(image):
    theta, y, fit = image
    alone = fitted(y, "hierarchical").posterior(y)
    post = fit.posterior(y, voxels=PLACE)
    for name in ("D", "K"):
        error, before = (np.sqrt(np.mean((p.mean[name].numpy() - theta[name][:, 0]) ** 2)) for p in (post, alone))
        assert error < 0.8 * before
        inside = post.interval(0.9)[name].numpy()
        share = np.mean((inside[:, 0] < theta[name][:, 0]) & (theta[name][:, 0] < inside[:, 1]))
        assert share > 0.8  # 256 voxels that depend on each other


def test_a_lesion_of_three_voxels_survives(image):
    theta, y, fit = image
    post = fit.posterior(y, voxels=PLACE)
    around = (np.abs(PLACE - [4, 6, 0]).max(1) <= 3) & ~LESION
    d, true = post.mean["D"].numpy(), theta["D"][:, 0]
    # noise of three voxels: 0.07 / sqrt(3), of a contrast of 0.32
    assert d[LESION].mean() - d[around].mean() > 0.75 * (true[LESION].mean() - true[around].mean())
    inside = post.interval(0.9)["D"].numpy()[LESION]
    assert np.all((inside[:, 0] < true[LESION] + 0.05) & (inside[:, 1] > true[LESION] - 0.05))
    assert post.alone.numpy()[LESION].min() > 5 * np.median(post.alone.numpy())


def test_it_is_known_how_much_neighbours_state(image):
    _, y, fit = image
    post = fit.posterior(y, voxels=PLACE)
    assert list(post.neighbours) == ["D", "K"]
    for share in post.neighbours.values():
        assert torch.all((share >= 0) & (share <= 1))
        assert float(share.median()) > 0.3  # seen: 0.49 and more
        assert float(share[torch.from_numpy(LESION)].mean()) < float(share.median())
    alone = fit.posterior(y[:1], voxels=PLACE[:1])
    assert float(alone.neighbours["D"]) < 0.05
    single = fit.posterior(y, neighbours=False)
    assert single.neighbours == {}
    assert single.alone is None


def test_a_placed_voxel_is_drawn_from_its_neighbours_or_from_the_population(image):
    _, y, fit = image
    nearby = fit.nearby(y, voxels=PLACE)
    voxels = fit.guide.prepare(nearby.at(slice(0, 20)).given_to(fit.batch(y[:20])).voxels)
    prior = fit.model.prior
    z, population = torch.randn(20, prior.n_latents), prior.classes()
    near = torch.distributions.MultivariateNormal(voxels.nearby_loc, scale_tril=voxels.nearby_tril).log_prob(z)
    whole = torch.distributions.MultivariateNormal(population.loc[0], scale_tril=population.scale_tril[0]).log_prob(z)
    share = voxels.nearby_share
    by_hand = torch.logaddexp(share.log() + near, (1 - share).log() + whole)
    torch.testing.assert_close(prior.log_prob(z, population, voxels), by_hand, rtol=1e-4, atol=1e-4)
    program = Prior.log_prob(prior, z, population, voxels)  # the density of the Pyro program, its choice summed out
    torch.testing.assert_close(program, by_hand, rtol=1e-4, atol=1e-4)


def test_a_mask_gives_the_same_positions(image):
    _, y, fit = image
    one = fit.posterior(y, voxels=PLACE).mean["D"]
    other = fit.posterior(y, mask=np.ones((SIZE, SIZE, 1))).mean["D"]
    torch.testing.assert_close(one, other)


def test_a_saved_fit_maps_a_new_scan_alike(image, tmp_path):
    theta, _, fit = image
    fit.save(tmp_path / "fit")
    y = scan(theta, seed=1)
    torch.testing.assert_close(
        pq.load_fit(tmp_path / "fit").posterior(y, voxels=PLACE).mean["K"], fit.posterior(y, voxels=PLACE).mean["K"]
    )


def test_a_field_saved_before_voxels_could_leave_it_is_one_that_none_leaves():
    weights = Gmrf(2).state_dict()
    del weights["leave"]
    prior = Gmrf(2)
    prior.leave.fill_(0.1)
    prior.load_state_dict(weights)
    assert prior.law().leave == 0


def test_parts_of_an_image_are_those_of_the_whole(image):
    _, y, fit = image
    whole = fit.posterior(y, voxels=PLACE).sd["D"]
    nearby = fit.nearby(y, voxels=PLACE)
    part = fit.posterior(y[100:140], neighbours=nearby.at(slice(100, 140))).sd["D"]
    torch.testing.assert_close(part, whole[100:140], rtol=1e-4, atol=1e-5)


def test_islands_single_voxels_and_gaps_are_mapped(image):
    _, y, fit = image
    y = y.copy()
    y[17] = np.nan
    far = PLACE.copy()
    far[:5] += [[100, 0, 0], [110, 0, 0], [120, 0, 0], [130, 5, 9], [140, 5, 9]]
    mean = fit.posterior(y, voxels=far).mean["D"]
    assert torch.isfinite(mean).sum() == len(y) - 1
    one = fit.posterior(y[:1], voxels=np.array([[3, 3, 3]]))
    alone = fit.posterior(y[:1], neighbours=False)
    torch.testing.assert_close(one.mean["D"], alone.mean["D"], rtol=0.02, atol=0.01)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs to know where the voxels lie"),
        ({"voxels": PLACE[:-1]}, r"integer indices \(256, 3\)"),
        ({"voxels": PLACE[:, :2]}, r"integer indices \(256, 3\)"),
        ({"voxels": PLACE.astype(float)}, "integer indices"),
        ({"mask": np.ones((SIZE, SIZE, 2))}, "an image with 256 voxels"),
        ({"voxels": np.minimum(PLACE, 14)}, r"duplicates, such as"),
        ({"voxels": PLACE, "mask": np.ones((SIZE, SIZE, 1))}, "give one of them"),
    ],
)
def test_positions_that_are_wrong_are_refused(image, given, words):
    _, y, fit = image
    for call in (
        lambda: fit.posterior(y, **given),
        lambda: pq.fit(y, ACQ, signal="msdki", recipe="spatial", sigma=80, **given),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_shuffled_voxels_are_mapped_by_themselves_and_the_fit_states_so():
    theta = tissue()
    y = scan(theta)[np.random.default_rng(0).permutation(len(PLACE))]
    fit = fitted(y)
    assert any("no more alike" in warning for warning in fit.warnings)
    torch.testing.assert_close(
        fit.posterior(y, voxels=PLACE).mean["D"], fit.posterior(y, neighbours=False).mean["D"], rtol=1e-3, atol=1e-3
    )


def test_the_program_is_a_joint_field_before_voxels_are_placed(image):
    _, y, fit = image
    rows = np.arange(30)
    voxels = fit.prepare(y[rows])
    placed = type(voxels)(**{**vars(voxels), "position": torch.from_numpy(PLACE[rows])})
    trace = poutine.trace(fit.model).get_trace(placed)
    trace.compute_log_prob()
    prior = fit.model.prior
    precision = prior.law().system(trace.nodes["z"]["fn"].graph, trace.nodes["z"]["fn"].weights)
    dense = precision(np.eye(60).reshape(30, 2, 60)).reshape(60, 60)
    exact = torch.distributions.MultivariateNormal(
        prior.loc.detach().double().repeat(30), precision_matrix=torch.from_numpy((dense + dense.T) / 2)
    ).log_prob(trace.nodes["z"]["value"].double().reshape(-1))
    assert float(trace.nodes["z"]["log_prob"].sum()) == pytest.approx(float(exact), abs=1e-2)


def test_noise_that_neighbours_share_is_seen():
    rng = np.random.default_rng(0)
    place = np.argwhere(np.ones((12, 12, 12)))
    white = rng.standard_normal((12, 13, 12, len(ACQ)))
    shared = (white[:, 1:] + 0.5 * white[:, :-1]) / np.sqrt(1.25)  # 0.4 along the second axis
    found = blur_of(torch.from_numpy(shared.reshape(-1, len(ACQ))), ACQ, torch.from_numpy(place))
    assert found.correlation[1] == pytest.approx(0.4, abs=0.04)
    assert found.correlation[0] == found.correlation[2] == 0
    assert found.counted == pytest.approx(1.8, abs=0.08)


def test_shared_noise_is_not_taken_for_structure():
    """Tissue whose voxels are independent, and noise that neighbours share: 0.35 along either axis."""
    rng, n = np.random.default_rng(1), SIZE**2
    theta = {"D": 0.9 + 0.05 * rng.standard_normal((n, 1)), "K": 0.8 + 0.08 * rng.standard_normal((n, 1))}
    y = scan(theta, shared=0.4)
    fit = fitted(y)
    assert any("the noise of neighbouring voxels correlates" in warning for warning in fit.warnings)
    post, alone = fit.posterior(y, voxels=PLACE), fit.posterior(y, neighbours=False)
    for name, true in theta.items():
        error, before = (np.sqrt(np.mean((p.mean[name].numpy() - true[:, 0]) ** 2)) for p in (post, alone))
        assert error < 1.1 * before  # 1.5 where each neighbour counts in full


def test_a_field_is_checked_on_an_image_of_its_own(image):
    found = pq.check(image[2], n=200, n_draws=99)
    assert "image of the fit's own field" in found.simulated
    assert found.n == 225  # one in four of 30 x 30
    for cell in found.cells:
        assert 0.78 < cell.coverage[2] < 0.99  # at least half as many independent ones: 0.03


def test_no_region_or_other_check_of_a_field(image):
    _, y, fit = image
    with pytest.raises(InputError, match="less certain"):
        fit.posterior(y, voxels=PLACE).region(np.ones(len(y), bool))
    for wrong in (lambda: pq.check(fit, n=400, truth="tissue"), lambda: recalibrate(fit), lambda: stress(fit)):
        with pytest.raises(InputError, match="maps images, and single voxels were to be simulated"):
            wrong()
