"""Two groups of subjects compared by the mean of a region, each subject's uncertainty carried through.

    python inference/compare_groups.py
    python inference/compare_groups.py --subjects 20 --difference 0.03

Every subject is a scan of its own: a region of white matter whose diffusivity differs between the groups, inside a
scan of white and grey matter. One fit learns the population from all scans; `region` gives each subject's mean with
its sd, under a population of the region's own, for that of all scans would draw it to the other subjects. Subjects
then enter a Pyro model of two groups, in which a subject that is known badly counts less; its posterior goes to
ArviZ. The t-test beside it takes every subject's mean as if it were exact.
"""

import argparse

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from scipy.stats import ttest_ind
from torch import Tensor

import pyroqmri as pq
from pyroqmri.diagnostics import from_pyro_svi
from pyroqmri.posterior import region
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import simulate

PROTOCOL = np.repeat([0.0, 1.0, 2.0], [4, 8, 8])  # b in ms/um2
BETWEEN = 0.03  # sd between subjects of a group, um2/ms


def subject(D: float, n_region: int, snr: float, seed: int) -> tuple[Tensor, Tensor]:
    """Measurements ``(N, M)`` of one subject, and which voxels are the region ``(N,)``."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.arange(150) < n_region
    z = torch.randn(2, 150, generator=generator)
    theta = {"D": torch.where(inside, D, 1.3) + 0.1 * z[0], "K": torch.where(inside, 1.1, 0.7) + 0.15 * z[1]}
    return simulate(SIGNALS["msdki"], pq.Acquisition(bval=PROTOCOL), theta, snr=snr, seed=seed + 1), inside


def groups(mean: Tensor, sd: Tensor, group: Tensor) -> None:
    """Subjects' region means, known with ``sd``, around the means of their groups."""
    mu = pyro.sample("mu", dist.Normal(torch.full((2,), 1.0), 1.0).to_event(1))
    tau = pyro.sample("tau", dist.HalfNormal(0.2))
    pyro.deterministic("difference", mu[1] - mu[0])
    with pyro.plate("subjects", len(sd)):
        pyro.sample("mean", dist.Normal(mu[group], (tau.square() + sd.square()).sqrt()), obs=mean)


def main() -> None:
    """Simulate, fit, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=12, help="in each group")
    parser.add_argument("--difference", type=float, default=0.05, help="of D between the groups, um2/ms")
    parser.add_argument("--snr", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(given.seed)
    group = torch.arange(2 * given.subjects) % 2
    truth = 0.95 + given.difference * group.numpy() + BETWEEN * rng.standard_normal(len(group))
    # regions of 4 to 60 voxels: some subjects are known much better than others
    sizes = rng.integers(4, 61, len(group))
    scans = [subject(D, n, given.snr, 10 * i) for i, (D, n) in enumerate(zip(truth, sizes, strict=True))]
    acq = pq.Acquisition(bval=PROTOCOL)
    fit = pq.fit(
        torch.cat([y for y, _ in scans]), acq, signal="msdki", recipe="hierarchical_mixture", sigma=1 / given.snr,
        settings={"training.steps": given.steps, "prior.classes": 2},
    )  # fmt: skip
    regions = [region(fit.posterior(y), mask, own_population=True) for y, mask in scans]
    print("subject  group  voxels   D of the region, um2/ms   between voxels")
    for i, r in enumerate(regions):
        print(f"{i:7} {int(group[i]):6} {r.n_voxels:7}   {r.mean['D']:.3f} +- {r.sd['D']:.3f}{r.spread['D']:20.3f}")
    mean, sd = (torch.tensor([getattr(r, what)["D"] for r in regions]) for what in ("mean", "sd"))
    pyro.set_rng_seed(given.seed)
    guide = AutoMultivariateNormal(groups)
    svi = SVI(groups, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(num_particles=4))
    losses = [svi.step(mean, sd, group) for _ in range(2 * given.steps)]
    data = from_pyro_svi(groups, guide, mean, sd, group, n_draws=1000, losses=losses)
    draws = data["posterior"]["difference"].to_numpy().ravel()
    low, high = np.quantile(draws, [0.05, 0.95])
    plain = ttest_ind(mean[group == 1].numpy(), mean[group == 0].numpy())
    interval = plain.confidence_interval(0.9)
    drawn = truth[group == 1].mean() - truth[group == 0].mean()
    print(f"\ndifference of D, um2/ms: true {given.difference:g}, of the subjects drawn {drawn:.3f}")
    print(f"uncertainty carried through: {draws.mean():.3f}, 90 % interval {low:.3f} to {high:.3f}, "
          f"P(above 0) = {(draws > 0).mean():.3f}, k-hat {data.attrs['khat']:.2f}")  # fmt: skip
    print(f"t-test of the means:         {float(mean[group == 1].mean() - mean[group == 0].mean()):.3f}, 90 % interval "
          f"{interval.low:.3f} to {interval.high:.3f}, p = {plain.pvalue:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
