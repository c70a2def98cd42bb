"""Ball and up to three sticks."""

import torch

from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.shells import shells
from pyroqmri.signals.stick_peaks import missing_sticks, stick_peaks

FRACTIONS = ("f1", "f2", "f3")
AXES = ("n1", "n2", "n3")


class BallSticks(SignalModel):
    r"""Water in up to three sticks along axes n, and in a ball of the same diffusivity.

    .. math:: S(b, g)/S_0 = \left(1 - \sum_k f_k\right) e^{-b D} + \sum_k f_k\, e^{-b D (g \cdot n_k)^2},
              \qquad f_1 \geq f_2 \geq f_3

    The bounds of each fraction follow from those before it, so that fractions fall and the ball's is not negative. A
    stick that is not there has a fraction of zero and an axis that is anywhere. Which sticks are there is what
    `hierarchical` enumerates, with a posterior over their number.

    Source: Behrens et al. 2007, doi:10.1016/j.neuroimage.2006.09.018.
    """

    requires = ("bval", "bvec")
    source = "doi:10.1016/j.neuroimage.2006.09.018"
    parameters = (
        Parameter("D", "D", "um2/ms", 0.05, 4.0, "diffusivity of the ball and along the sticks"),
        Parameter("f1", "f_1", "1", 0.0, 1.0, "volume fraction of the largest stick"),
        Parameter("f2", "f_2", "1", 0.0, 0.5, "volume fraction of the second stick"),
        Parameter("f3", "f_3", "1", 0.0, 1 / 3, "volume fraction of the third stick"),
        Direction("n1", "n_1", "axis of the largest stick"),
        Direction("n2", "n_2", "axis of the second stick"),
        Direction("n3", "n_3", "axis of the third stick"),
    )
    countable = FRACTIONS
    expected = {"D": (1.3, 0.5, 0.3), "f1": (0.4, 0.2, 0.15), "f2": (0.15, 0.1, 0.08), "f3": (0.06, 0.05, 0.04)}
    expected_source = "Behrens et al. 2007, doi:10.1016/j.neuroimage.2006.09.018"
    default_protocol = shells(6, 60, 1.0, 2.0, 3.0)
    typical_tissue = {
        "white matter": {"D": (1.2, 0.15), "f1": (0.42, 0.06), "f2": (0.18, 0.05), "f3": (0.06, 0.02)},
        "grey matter": {"D": (0.9, 0.12), "f1": (0.15, 0.05), "f2": (0.06, 0.02), "f3": (0.03, 0.01)},
        "csf": {"D": (3.0, 0.1), "f1": (0.04, 0.02), "f2": (0.02, 0.01), "f3": (0.01, 0.005)},
    }

    @staticmethod
    def signal(acq, D, f1, f2, f3, n1, n2, n3):
        found = (1 - f1 - f2 - f3) * torch.exp(-acq.bval * D)
        for f, n in ((f1, n1), (f2, n2), (f3, n3)):
            cosine = torch.matmul(n, acq.bvec.mT).squeeze(-2)
            found = found + f * torch.exp(-acq.bval * D * cosine.square())
        return found

    @staticmethod
    def slopes(acq, D, f1, f2, f3, n1, n2, n3):
        left, ball = 1 - f1 - f2 - f3, torch.exp(-acq.bval * D)
        signal, by_diffusivity = left * ball, -acq.bval * left * ball
        by_fraction, by_cosine = [], []
        for f, n in ((f1, n1), (f2, n2), (f3, n3)):
            cosine = torch.matmul(n, acq.bvec.mT).squeeze(-2)
            along = -acq.bval * cosine
            stick = torch.exp(along * cosine * D)
            turning = f * along * stick
            signal = signal + f * stick
            by_diffusivity = by_diffusivity + turning * cosine
            by_fraction.append(stick - ball)
            by_cosine.append(2 * D * turning)
        return signal, (by_diffusivity, *by_fraction, *by_cosine)

    @classmethod
    def box(cls, name, theta):
        if name not in FRACTIONS[1:]:
            return None
        before = [theta[f] for f in FRACTIONS[: FRACTIONS.index(name)]]
        upper = torch.minimum(before[-1], 1 - torch.stack(torch.broadcast_tensors(*before)).sum(0)).clamp_min(1e-9)
        return torch.zeros_like(upper), upper

    @classmethod
    def guesses(cls, acq, y):
        return stick_peaks(acq, y).by_number()

    @classmethod
    def missing_axes(cls, acq, theta, residual, tangent):
        return missing_sticks(acq, theta["D"], residual, tangent)

    @classmethod
    def widening(cls, acq, theta):
        assert acq.bval is not None and acq.bvec is not None
        x, left = theta["D"].unsqueeze(-1) * acq.bval, 1 - torch.stack([theta[name] for name in FRACTIONS]).sum(0)
        found = left.unsqueeze(-1) * x.square() * torch.exp(-x) / 2
        for f, n in zip(FRACTIONS, AXES, strict=True):
            along = x * (theta[n] @ acq.bvec.mT).square()
            found = found + theta[f].unsqueeze(-1) * along.square() * torch.exp(-along) / 2
        return found

    @classmethod
    def first_guess(cls, acq, y):
        return cls.guesses(acq, y)[-1]

    @classmethod
    def initial_axis(cls, acq, y):
        theta = cls.first_guess(acq, y)
        return torch.stack([theta[name] for name in AXES], -2)
