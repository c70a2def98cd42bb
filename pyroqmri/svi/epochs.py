"""One pass over voxels: what trainings in epochs share. The loop of steps of :func:`pyroqmri.svi.fit_svi` stays apart.

Its unit is the step: batches are drawn with replacement, learning rates and the prior's temperature move with each
step, gradients are clipped and looked at before they are followed, and a checkpoint falls between any two steps.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pyroqmri.errors import TrainingError


def one_epoch(
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any], Tensor],
    batches: Iterable[Any],
    *,
    epoch: int,
    setting: str,
) -> Tensor:
    """Follow the gradient of each batch; the mean loss of the epoch, of each network where there are several.

    Parameters
    ----------
    optimizer, loss
        What moves the weights, and the mean loss of a batch: a scalar, or ``(K,)`` for K networks side by side.
    batches
        Anything with a length.
    epoch, setting
        The number of the epoch, and the learning rate as a recipe names it: for the sentence of an error.

    Raises
    ------
    TrainingError
        When the loss has left the finite numbers, of every network where there are several.
    """
    total, n = torch.zeros(()), 0
    for batch in batches:
        value = loss(batch)
        optimizer.zero_grad(set_to_none=True)
        value.sum().backward()
        optimizer.step()
        total = total.to(value.device) + value.detach() * len(batch)
        n += len(batch)
    mean = total / max(1, n)
    if not torch.isfinite(mean).any():
        raise TrainingError(f"the loss is not finite in epoch {epoch}; lower {setting}")
    return mean
