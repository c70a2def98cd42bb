"""Where inference starts: every voxel's own posterior mode under a weak prior."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from pyroqmri.laplace.mode import Expansion, Mode, expand, find_modes
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.repeats import columns, compress, repeats, worth_it
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import frame_around
from pyroqmri.signals import BoundSignal
from pyroqmri.signals.own_gradients import has_own_gradients

N_CANDIDATES = 256
CHUNK = 8192
FIRST_STEPS = 8


class Shortening(nn.Module):
    """A signal and voxels with repeated measurements compressed, where that saves work; else as they are.

    Parameters
    ----------
    signal
        The signal at the full acquisition.
    averaged
        Whether the measurements are means already.
    """

    def __init__(self, signal: BoundSignal, averaged: bool) -> None:
        super().__init__()
        groups = repeats(signal.acquisition)
        directional = "bvec" in signal.signal.requires
        self.active = not directional and not averaged and worth_it(groups)
        self.groups = groups
        self.signal = signal.at(columns(groups)) if self.active else signal
        self._whole = (signal,)  # a tuple hides the module from registration

    def serves(self, voxels: Voxels) -> bool:
        """Whether the voxels' measurements are compressed; what repeats a setting does not where gradients deviate."""
        return self.active and not has_own_gradients(voxels.inputs)

    def signal_of(self, voxels: Voxels) -> BoundSignal:
        """The signal at the entries that the voxels have once they are as this leaves them."""
        return self.signal if self.serves(voxels) else self._whole[0]

    def forward(self, voxels: Voxels) -> Voxels:
        """The voxels as ``signal_of`` them sees them."""
        return compress(voxels, self.groups) if self.serves(voxels) else voxels


@torch.no_grad()
def find_start(voxels: Voxels, signal: BoundSignal, likelihood: Likelihood, n_steps: int = 30) -> Voxels:
    """The same voxels with ``mode``, ``scale_tril`` and, for a signal with a direction, ``frame``.

    The prior is standard normal in the unconstrained coordinates, uniform in the
    box of the bounds. A direction's frame is turned to the mode's axis, where its
    coordinates are zero.
    """
    weak = voxels.y.new_ones(signal.n_latents).diag()
    chunks = (voxels[i : i + CHUNK] for i in range(0, len(voxels), CHUNK))
    modes, frames = zip(*(mode_under_prior(c, signal, likelihood, weak, n_steps) for c in chunks), strict=True)
    frame = None if signal.direction is None else torch.cat(frames)
    mode, scale_tril = torch.cat([m.z for m in modes]), torch.cat([m.scale_tril for m in modes])
    return replace(voxels, mode=mode, scale_tril=scale_tril, frame=frame)


def mode_under_prior(
    voxels: Voxels,
    signal: BoundSignal,
    likelihood: Likelihood,
    precision: Tensor,
    n_steps: int,
    start: Tensor | None = None,
) -> tuple[Mode, Tensor | None]:
    """Mode of each voxel and the frame it is written in, under a zero-mean Gaussian prior of given ``precision``.

    The search begins at the latents ``start`` ``(N, L)``, or, when None, at the best of points spread over the prior.
    """
    frame = None
    if signal.direction is not None:
        frame = frame_around(signal.signal.initial_axis(signal.acquisition, voxels.y))
    z = _best_start(voxels, signal, likelihood, frame, precision) if start is None else start
    rounds = 1 if frame is None else 2
    for _ in range(rounds):
        mode = _climb(voxels, signal, likelihood, frame, z, precision, n_steps)
        z = mode.z
        if frame is not None:
            z, frame = signal.at_axes(z[..., : signal.n_tissue], signal.constrain(z, frame))
    if frame is None:
        return mode, None
    # the last turn moved the coordinates: the curvature has to be written in them
    return replace(_climb(voxels, signal, likelihood, frame, z, precision, 0), converged=mode.converged), frame


def _climb(
    voxels: Voxels,
    signal: BoundSignal,
    likelihood: Likelihood,
    frame: Tensor | None,
    z: Tensor,
    precision: Tensor,
    n_steps: int,
) -> Mode:
    """Mode of each voxel; a few steps for all, then more for those that need them."""

    def evaluate(u: Tensor, index: Tensor) -> Expansion:
        whole = len(index) == len(voxels)
        part, turned = (voxels, frame) if whole else (voxels[index], None if frame is None else frame[index])
        return expand(
            lambda v: signal(signal.constrain(v, turned), part.inputs),
            likelihood,
            part,
            u,
            lambda v: signal.unconstrained_slopes(v, turned, part.inputs),
        )

    return find_modes(evaluate, z, z.new_zeros(z.shape[-1]), precision, n_steps)


def _best_candidates(voxels: Voxels, signal: BoundSignal, frame: Tensor | None) -> Tensor:
    """Latents ``(K, N, L)``: the likeliest of a fixed set of points spread over the prior, in each of K regions of it.

    Regions are those of the first parameter, as many as the signal says that posteriors may have modes.
    """
    if guess := signal.first_guess(voxels.y):
        tissue = signal.unconstrain(guess).clamp(-2.0, 2.0)
        return nn.functional.pad(tissue, (0, signal.n_latents - signal.n_tissue))[None]
    n = N_CANDIDATES if frame is None else N_CANDIDATES // 8
    points = torch.quasirandom.SobolEngine(signal.n_tissue, scramble=True, seed=0).draw(n).to(voxels.y)
    points = points[points[:, 0].argsort()]
    tissue = torch.special.ndtri(points.clamp(0.02, 0.98))
    candidates = torch.cat([tissue, tissue.new_zeros(n, signal.n_latents - signal.n_tissue)], -1)
    if frame is None and not voxels.inputs:
        signals = signal(signal.constrain(candidates))
        # least squares by one matrix product; the noise model matters once the region is found
        weights = torch.ones_like(voxels.y) if voxels.weights is None else voxels.weights
        distance = weights @ signals.square().mT - 2 * (weights * voxels.y) @ signals.mT
    else:
        each = (signal(signal.constrain(c.expand(len(voxels), -1), frame), voxels.inputs) for c in candidates)
        weights = 1.0 if voxels.weights is None else voxels.weights
        distance = torch.stack([((s - voxels.y).square() * weights).sum(-1) for s in each], -1)
    regions = torch.arange(n, device=distance.device).tensor_split(signal.signal.n_modes)
    return torch.stack([candidates[region[distance[:, region].argmin(-1)]] for region in regions])


def _best_start(
    voxels: Voxels, signal: BoundSignal, likelihood: Likelihood, frame: Tensor | None, precision: Tensor
) -> Tensor:
    """Latents ``(N, L)`` to start from: of several regions, where the climb from one led highest."""
    starts = _best_candidates(voxels, signal, frame)
    if len(starts) == 1:
        return starts[0]
    modes = [_climb(voxels, signal, likelihood, frame, z, precision, FIRST_STEPS) for z in starts]
    best = torch.stack([mode.objective for mode in modes]).argmax(0)
    return torch.stack([mode.z for mode in modes])[best, torch.arange(len(voxels), device=best.device)]
