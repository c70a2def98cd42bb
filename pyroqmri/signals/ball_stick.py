"""Ball and stick."""

import torch

from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.shells import shells
from pyroqmri.signals.tensor import principal_axis


class BallStick(SignalModel):
    r"""Water in one stick along an axis n, and in a ball.

    .. math:: S(b, g)/S_0 = f e^{-b D_\parallel (g \cdot n)^2} + (1 - f) e^{-b D_{iso}}

    Source: Behrens et al. 2003, doi:10.1002/mrm.10609.
    """

    requires = ("bval", "bvec")
    source = "doi:10.1002/mrm.10609"
    parameters = (
        Parameter("f", "f", "1", 0.0, 1.0, "stick volume fraction"),
        Parameter("D_par", r"D_\parallel", "um2/ms", 0.01, 3.5, "diffusivity along the stick"),
        Parameter("D_iso", r"D_{iso}", "um2/ms", 0.01, 3.5, "diffusivity of the ball"),
        Direction("n", "n", "stick axis"),
    )
    expected = {"f": (0.4, 0.2, 0.15), "D_par": (1.7, 0.4, 0.3), "D_iso": (1.0, 0.5, 0.3)}
    expected_source = (
        "Behrens et al. 2003, doi:10.1002/mrm.10609, and, for diffusivities, Pierpaoli et al. 1996, "
        "doi:10.1148/radiology.201.3.8939209"
    )
    derived_parameters = (
        Parameter("theta", r"\theta", "rad", 0.0, torch.pi, "polar angle of the stick"),
        Parameter("phi", r"\phi", "rad", -torch.pi, torch.pi, "azimuth of the stick"),
    )
    default_protocol = shells(6, 30, 1.0, 2.0, 3.0)
    typical_tissue = {
        "white matter": {"f": (0.60, 0.10), "D_par": (1.9, 0.20), "D_iso": (0.9, 0.15)},
        "grey matter": {"f": (0.20, 0.08), "D_par": (1.5, 0.25), "D_iso": (1.0, 0.12)},
        "csf": {"f": (0.04, 0.03), "D_par": (2.8, 0.2), "D_iso": (3.0, 0.1)},
    }

    @staticmethod
    def signal(acq, f, D_par, D_iso, n):
        cosine = torch.matmul(n, acq.bvec.mT).squeeze(-2)
        return f * torch.exp(-acq.bval * D_par * cosine.square()) + (1 - f) * torch.exp(-acq.bval * D_iso)

    @staticmethod
    def slopes(acq, f, D_par, D_iso, n):
        cosine = torch.matmul(n, acq.bvec.mT).squeeze(-2)
        along = -acq.bval * cosine
        stick, ball = torch.exp(along * cosine * D_par), torch.exp(-acq.bval * D_iso)
        turning = f * along * stick
        signal = f * stick + (1 - f) * ball
        return signal, (stick - ball, turning * cosine, (f - 1) * acq.bval * ball, 2 * D_par * turning)

    @classmethod
    def derived(cls, theta):
        x, y, z = theta["n"].unbind(-1)
        return {"theta": torch.acos(z.clamp(-1, 1)), "phi": torch.atan2(y, x)}

    @classmethod
    def initial_axis(cls, acq, y):
        return principal_axis(acq, y)
