"""Log-likelihoods of the measurements of some voxels under draws from their posterior."""

from typing import Any

import torch
from torch import Tensor

MOST_VALUES = 130_000_000  # half a gigabyte
_DRAWS = 100


def log_likelihood(posterior: Any, n: int | None, seed: int) -> Tensor:
    """Of each measurement that the model sees, under ``n`` draws: ``(n, N, M)``, float32.

    Parameters
    ----------
    posterior
        A :class:`pyroqmri.posterior.Posterior` of N voxels.
    n
        Number of draws; None for 100, or as many as :data:`MOST_VALUES` allows.
    seed
        Of the draws.
    """
    n_voxels, n_measurements = len(posterior.batch.status), posterior.batch.voxels.y.shape[1]
    if n is None:
        n = min(_DRAWS, max(1, MOST_VALUES // max(1, n_voxels * n_measurements)))
    found, done = torch.full((n, n_voxels, n_measurements), torch.nan), 0
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for voxels, q in posterior._chunks(n * n_measurements):
            signal = posterior.model.simulate(q.sample(torch.Size([n])), voxels)
            log_prob = posterior.model.seen(signal, voxels).log_prob
            found[:, posterior.batch.index[done : done + len(voxels)]] = log_prob.to(found)
            done += len(voxels)
    return found
