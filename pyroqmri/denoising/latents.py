"""What each latent of a denoiser carries: its posterior, its contribution, what moving it does."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.denoising.autoencoder import Autoencoder

DEAD_VARIANCE = 0.01  # of the posterior mean, for a prior variance of 1: Burda et al. 2016, arXiv:1509.00519
DEAD_CONTRIBUTION = 0.01  # of the largest contribution, for a network without a posterior
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)


@dataclass(frozen=True)
class Latents:
    """What each of L latents does on some voxels.

    Parameters
    ----------
    loc, spread
        Mean and standard deviation over voxels of the posterior means, ``(L,)``.
    scale
        Mean posterior standard deviation ``(L,)``, None without a posterior.
    kl
        Mean divergence from the prior ``(L,)`` in nats, None without a posterior.
    contribution
        Root mean square change of the denoised measurements when a latent is held at its mean, ``(L,)``.
    traversal
        Measurements ``(L, 5, M)`` decoded with one latent at -2 to 2 spreads from its mean, the others at theirs.
    dead
        Latents that carry nothing, ``(L,)``: with a posterior those whose mean hardly moves, else those
        without a contribution.
    """

    loc: Tensor
    spread: Tensor
    scale: Tensor | None
    kl: Tensor | None
    contribution: Tensor
    traversal: Tensor
    dead: Tensor

    def record(self) -> dict[str, object]:
        """As plain values; latents count from 1."""
        found: dict[str, object] = {
            name: None if value is None else value.tolist()
            for name, value in vars(self).items()
            if name not in ("traversal", "dead")
        }
        return found | {"dead": [int(i) + 1 for i in self.dead.nonzero().flatten()]}


@torch.no_grad()
def describe_latents(network: Autoencoder, y: Tensor) -> Latents:
    """Latents of voxels ``(N, M)`` as the network takes them."""
    z = network.z_loc(y)
    scale = network.z_scale(y)
    loc, spread = z.mean(0), z.std(0)
    kl = None if scale is None else (0.5 * (z.square() + scale.square() - 1) - scale.log()).mean(0)
    full = network.decoder(z)
    contribution, moved = [], []
    for i in range(network.n_latents):
        held = z.clone()
        held[:, i] = loc[i]
        contribution.append((network.decoder(held) - full).square().mean().sqrt())
        path = loc.repeat(len(STEPS), 1)
        # a dead latent is moved over its prior, so that its silence shows
        path[:, i] += torch.tensor(STEPS, device=z.device) * (spread[i] if scale is None else spread[i].clamp_min(0.1))
        moved.append(network.decoder(path))
    size = torch.stack(contribution)
    if scale is None:
        dead = size <= DEAD_CONTRIBUTION * size.max()
    else:
        dead = spread.square() < DEAD_VARIANCE
    mean_scale = None if scale is None else scale.mean(0)
    return Latents(loc, spread, mean_scale, kl, size, torch.stack(moved), dead)
