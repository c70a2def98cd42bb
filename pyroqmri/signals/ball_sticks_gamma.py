"""Ball and up to three sticks, whose diffusivity is not one number."""

import torch
from torch import Tensor

from pyroqmri.parameter import Parameter
from pyroqmri.signals.ball_sticks import BallSticks
from pyroqmri.signals.stick_peaks import decay, missing_sticks, stick_peaks

WIDTH = 0.7  # D_std over D that searches start from
_SMALL = 0.02  # of the product of decay and squared width, below which the slope is a series


class BallSticksGamma(BallSticks):
    r"""Water in up to three sticks along axes n, and in a ball, with gamma-distributed diffusivities.

    .. math:: S(b, g)/S_0 = \left(1 - \sum_k f_k\right) A(b) + \sum_k f_k\, A\!\left(b\, (g \cdot n_k)^2\right),
              \qquad A(b) = \left(1 + b\, \frac{\sigma_D^2}{D}\right)^{-D^2 / \sigma_D^2}

    A is the mean of exp(-b d) over a gamma distribution of d with mean D and standard deviation
    :math:`\sigma_D`, which at zero is :math:`e^{-b D}`: the second model of bedpostx. Tissue on several shells does not
    decay by one diffusivity, and sticks of one would describe that by more sticks. One shell does not determine the
    width.

    Source: Jbabdi et al. 2012, doi:10.1002/mrm.24204.
    """

    source = "doi:10.1002/mrm.24204"
    parameters = (
        Parameter("D", "D", "um2/ms", 0.05, 4.0, "mean diffusivity of the ball and along the sticks"),
        Parameter("D_std", r"\sigma_D", "um2/ms", 0.02, 4.0, "standard deviation of the diffusivity in the voxel"),
        *BallSticks.parameters[1:],
    )
    expected = {**BallSticks.expected, "D": (1.3, 0.5, 0.4), "D_std": (0.9, 0.5, 0.3)}
    expected_source = "Jbabdi et al. 2012, doi:10.1002/mrm.24204"
    typical_tissue = {
        "white matter": {**BallSticks.typical_tissue["white matter"], "D_std": (0.9, 0.15)},
        "grey matter": {**BallSticks.typical_tissue["grey matter"], "D_std": (0.6, 0.1)},
        "csf": {**BallSticks.typical_tissue["csf"], "D_std": (0.3, 0.1)},
    }

    @staticmethod
    def signal(acq, D, D_std, f1, f2, f3, n1, n2, n3):
        found = (1 - f1 - f2 - f3) * decay(acq.bval, D, D_std)
        for f, n in ((f1, n1), (f2, n2), (f3, n3)):
            cosine = torch.matmul(n, acq.bvec.mT).squeeze(-2)
            found = found + f * decay(acq.bval * cosine.square(), D, D_std)
        return found

    @staticmethod
    def slopes(acq, D, D_std, f1, f2, f3, n1, n2, n3):
        left, (ball, *by_ball) = 1 - f1 - f2 - f3, _decay_slopes(acq.bval, D, D_std)
        signal, by_mean, by_width = left * ball, left * by_ball[1], left * by_ball[2]
        by_fraction, by_cosine = [], []
        for f, n in ((f1, n1), (f2, n2), (f3, n3)):
            cosine = torch.matmul(n, acq.bvec.mT).squeeze(-2)
            stick, by_b, by_d, by_s = _decay_slopes(acq.bval * cosine.square(), D, D_std)
            signal = signal + f * stick
            by_mean, by_width = by_mean + f * by_d, by_width + f * by_s
            by_fraction.append(stick - ball)
            by_cosine.append(2 * f * by_b * acq.bval * cosine)
        return signal, (by_mean, by_width, *by_fraction, *by_cosine)

    @classmethod
    def guesses(cls, acq, y):
        return [theta | {"D_std": WIDTH * theta["D"]} for theta in stick_peaks(acq, y, WIDTH).by_number()]

    @classmethod
    def widening(cls, acq, theta):
        return None

    @classmethod
    def missing_axes(cls, acq, theta, residual, tangent):
        return missing_sticks(acq, theta["D"], residual, tangent, theta["D_std"])


def _decay_slopes(b: Tensor, D: Tensor, D_std: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The decay and its derivatives by b, by the mean and by the standard deviation of the diffusivity."""
    r, x = (D_std / D).square(), b * D
    rx = r * x
    log = torch.log1p(rx) / r
    at = torch.exp(-log)
    slope = 1 / (1 + rx)
    series = x.square() * (-1 / 2 + rx * (2 / 3 - rx * (3 / 4 - rx * (4 / 5 - rx * 5 / 6))))
    by_r = torch.where(rx < _SMALL, series, (x * slope - log) / r)
    return at, -at * slope * D, -at * (slope * b - by_r * 2 * r / D), -at * by_r * 2 * r / D_std
