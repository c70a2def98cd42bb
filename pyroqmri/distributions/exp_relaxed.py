"""A relaxed one-hot component by its logarithm."""

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical


class ExpRelaxed(ExpRelaxedCategorical, TorchDistributionMixin):
    r"""Logarithm of a Gumbel-softmax: :math:`\log c = \mathrm{logsoftmax}((\mathrm{logits} + g) / \tau)`.

    A component that is as good as one-hot rounds to a corner of the simplex in float32, where its density is
    infinite; its logarithm is finite at any temperature.

    Source: Maddison et al. 2016, arXiv:1611.00712, appendix C.3.
    """
