"""The reconstruction loss as a density, so that a Pyro program can observe what is reconstructed."""

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import huber_loss, l1_loss, mse_loss


class Reconstruction(TorchDistribution):
    r"""Measurements ``(N, M)`` around a reconstruction, as likely as their loss is small.

    .. math:: p(x \mid \hat x) \propto \exp\Big(-\frac{1}{M} \sum_m \rho(x_m - \hat x_m)\Big),

    where :math:`\rho` is the squared, absolute or Huber loss. Its normaliser is a constant of the network
    and is left out, so ``log_prob`` is minus the loss itself. ``weight`` ``(N, M)`` takes the mean over some entries.
    """

    arg_constraints = {"loc": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, loc: Tensor, kind: str, delta: float = 1.0, weight: Tensor | None = None) -> None:
        self.loc, self.kind, self.delta, self.weight = loc, kind, delta, weight
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the loss of each voxel ``(N,)``."""
        if self.kind == "huber":
            loss = huber_loss(self.loc, value, reduction="none", delta=self.delta)
        else:
            loss = (mse_loss if self.kind == "mse" else l1_loss)(self.loc, value, reduction="none")
        if self.weight is None:
            return -loss.mean(-1)
        return -(loss * self.weight).sum(-1) / self.weight.sum(-1).clamp_min(1)

    def sample(self, sample_shape: Size = torch.Size()) -> Tensor:
        """The reconstruction itself: a loss has a best value, and no scale to draw at."""
        return self.loc.expand(sample_shape + self.loc.shape)
