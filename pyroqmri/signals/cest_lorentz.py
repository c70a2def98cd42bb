"""Chemical exchange saturation transfer."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel

CENTRES = {"water": 0.0, "amide": 3.5, "noe": -3.5, "mt": -2.5}  # ppm from water


class CESTLorentz(SignalModel):
    r"""Z-spectrum of four Lorentzian pools: water, amides, aliphatic protons (NOE) and macromolecules (MT).

    .. math:: S(\delta)/S_0 = 1 - \sum_i A_i
              \frac{(\Gamma_i/2)^2}{(\Gamma_i/2)^2 + (\delta - \delta_i - \delta_{B0})^2}

    The pools stand at 0, 3.5, -3.5 and -2.5 ppm, all moved by the field; water and macromolecules together saturate
    no more than everything. Measurements beyond 20 ppm are taken for S0 where S0 is measured. For fewer pools hold an
    amplitude at zero and its width anywhere: `fixed={"A_noe": 0, "w_noe": 3}`.

    Source: Zaiss et al. 2011, doi:10.1016/j.jmr.2011.05.001.
    """

    requires = ("offset",)
    source = "doi:10.1016/j.jmr.2011.05.001"
    suffix = "cestmap"
    parameters = (
        Parameter("A_water", "A_w", "1", 0.0, 1.0, "amplitude of water"),
        Parameter("w_water", r"\Gamma_w", "ppm", 0.2, 10.0, "full width of water at half its height"),
        Parameter("A_amide", "A_{APT}", "1", 0.0, 0.3, "amplitude of the amides"),
        Parameter("w_amide", r"\Gamma_{APT}", "ppm", 0.4, 5.0, "full width of the amides at half their height"),
        Parameter("A_noe", "A_{NOE}", "1", 0.0, 0.4, "amplitude of aliphatic protons"),
        Parameter("w_noe", r"\Gamma_{NOE}", "ppm", 0.5, 8.0, "full width of aliphatic protons at half their height"),
        Parameter("A_mt", "A_{MT}", "1", 0.0, 0.6, "amplitude of macromolecules"),
        Parameter("w_mt", r"\Gamma_{MT}", "ppm", 10.0, 100.0, "full width of macromolecules at half their height"),
        Parameter("shift", r"\delta_{B0}", "ppm", -3.0, 3.0, "frequency of water, moved by the field"),
    )
    expected = {
        "A_water": (0.8, 0.1, 0.07),
        "w_water": (1.5, 0.7, 0.4),
        "A_amide": (0.06, 0.03, 0.02),
        "w_amide": (1.5, 0.7, 0.3),
        "A_noe": (0.09, 0.04, 0.03),
        "w_noe": (3.0, 1.0, 0.5),
        "A_mt": (0.12, 0.06, 0.04),
        "w_mt": (40.0, 15.0, 6.0),
        "shift": (0.0, 0.3, 0.2),
    }
    expected_source = "Zaiss et al. 2011, doi:10.1016/j.jmr.2011.05.001, for the pools; widths of common spectra at 3 T"
    typical_tissue = {
        "white matter": dict(
            A_water=(0.75, 0.03), w_water=(1.6, 0.15), A_amide=(0.06, 0.01), w_amide=(1.5, 0.2), A_noe=(0.10, 0.015),
            w_noe=(3.0, 0.3), A_mt=(0.14, 0.02), w_mt=(40.0, 4.0), shift=(0.0, 0.1),
        ),
        "grey matter": dict(
            A_water=(0.80, 0.03), w_water=(1.4, 0.15), A_amide=(0.06, 0.01), w_amide=(1.5, 0.2), A_noe=(0.07, 0.012),
            w_noe=(3.0, 0.3), A_mt=(0.09, 0.015), w_mt=(40.0, 4.0), shift=(0.0, 0.1),
        ),
        "csf": dict(
            A_water=(0.93, 0.02), w_water=(0.9, 0.1), A_amide=(0.01, 0.003), w_amide=(1.5, 0.2), A_noe=(0.01, 0.003),
            w_noe=(3.0, 0.3), A_mt=(0.01, 0.003), w_mt=(40.0, 4.0), shift=(0.0, 0.1),
        ),
    }  # fmt: skip
    default_protocol = Acquisition(offset=torch.cat([torch.tensor([300.0, 300.0]), torch.arange(-8, 8.25, 0.25)]))

    @staticmethod
    def signal(acq, A_water, w_water, A_amide, w_amide, A_noe, w_noe, A_mt, w_mt, shift):
        at = acq.offset - shift
        pools = (
            lorentzian(at - CENTRES["water"], A_water, w_water),
            lorentzian(at - CENTRES["amide"], A_amide, w_amide),
            lorentzian(at - CENTRES["noe"], A_noe, w_noe),
            lorentzian(at - CENTRES["mt"], A_mt, w_mt),
        )
        return 1 - sum(pools)

    @classmethod
    def box(cls, name, theta):
        if name != "A_mt":
            return None
        # water and macromolecules saturate no more than everything
        left = 1 - theta["A_water"]
        return torch.zeros_like(left), left.clamp(1e-3, 0.6)


def lorentzian(offset: Tensor, amplitude: Tensor, width: Tensor) -> Tensor:
    """A line of a given height and full width at half of it."""
    half = (width / 2).square()
    return amplitude * half / (half + offset.square())
