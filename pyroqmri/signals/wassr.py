"""The frequency of water, from its direct saturation."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.cest_lorentz import lorentzian


class WASSR(SignalModel):
    r"""Water's own line in a spectrum of weak saturation, whose place is the field.

    .. math:: S(\delta)/S_0 = 1 - A\, \frac{(\Gamma/2)^2}{(\Gamma/2)^2 + (\delta - \delta_{B0})^2}

    Its map of `shift` is the input B0 of `cest_lorentz`. Offsets within 1 to 2 ppm of water, a weak pulse, and
    measurements beyond 20 ppm for S0, or `s0="inferred"`.

    Source: Kim et al. 2009, doi:10.1002/mrm.21873.
    """

    requires = ("offset",)
    source = "doi:10.1002/mrm.21873"
    suffix = "cestmap"
    parameters = (
        Parameter("A", "A", "1", 0.0, 1.0, "depth of the line"),
        Parameter("w", r"\Gamma", "ppm", 0.1, 5.0, "full width of the line at half its depth"),
        Parameter("shift", r"\delta_{B0}", "ppm", -3.0, 3.0, "frequency of water, moved by the field"),
    )
    expected = {"A": (0.8, 0.15, 0.1), "w": (0.7, 0.3, 0.2), "shift": (0.0, 0.3, 0.2)}
    expected_source = "Kim et al. 2009, doi:10.1002/mrm.21873"
    typical_tissue = {
        "white matter": {"A": (0.75, 0.05), "w": (0.8, 0.08), "shift": (0.0, 0.15)},
        "grey matter": {"A": (0.80, 0.05), "w": (0.7, 0.08), "shift": (0.0, 0.15)},
        "csf": {"A": (0.95, 0.02), "w": (0.4, 0.05), "shift": (0.0, 0.15)},
    }
    default_protocol = Acquisition(offset=torch.cat([torch.tensor([300.0, 300.0]), torch.linspace(-1, 1, 21)]))

    @staticmethod
    def signal(acq, A, w, shift):
        return 1 - lorentzian(acq.offset - shift, A, w)

    @staticmethod
    def slopes(acq, A, w, shift):
        x, half = acq.offset - shift, (w / 2).square()
        line = half / (half + x.square())
        fall = A * line / (half + x.square())
        return 1 - A * line, (-line, -fall * x.square() * 2 / w, -2 * fall * x)

    @classmethod
    def first_guess(cls, acq, y):
        assert acq.offset is not None
        largest, (smallest, place) = y.amax(-1), y.min(-1)
        depth = 1 - smallest / largest
        return {"A": depth, "w": torch.full_like(depth, 0.7), "shift": acq.offset[place], "S0": largest}
