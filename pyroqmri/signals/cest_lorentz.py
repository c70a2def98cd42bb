"""Chemical exchange saturation transfer."""

from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel

CENTRES = {"water": 0.0, "amide": 3.5, "noe": -3.5, "mt": -2.5}  # ppm from water
_DARKEST = 0.05  # of S0: below it an inverse is noise


class CESTLorentz(SignalModel):
    r"""Z-spectrum of four Lorentzian pools: water, amides, aliphatic protons (NOE) and macromolecules (MT).

    .. math:: S(\delta)/S_0 = 1 - \sum_i A_i
              \frac{(\Gamma_i/2)^2}{(\Gamma_i/2)^2 + (\delta - \delta_i - \delta_{B0})^2}

    The pools stand at 0, 3.5, -3.5 and -2.5 ppm, all moved by the field; water and macromolecules together saturate
    no more than everything. Measurements beyond 20 ppm are taken for S0 where S0 is measured. For fewer pools hold an
    amplitude at zero and its width anywhere: `fixed={"A_noe": 0, "w_noe": 3}`.

    With a map of the field in ppm (`--input B0=map.nii.gz`, such as that of `wassr`) `shift` is what is left beside it;
    `fixed={"shift": 0}` takes the map as it is. Derived, free of the field: the asymmetry S(-3.5) - S(3.5) over S0, and
    the relaxation that the amides' exchange adds, 1/Z(3.5) - 1/Z'(3.5) with Z' the spectrum without them. The latter
    over T1 is AREX, in which spillover, macromolecules and T1 have no part.

    Source: Zaiss et al. 2011, doi:10.1016/j.jmr.2011.05.001 (lines); Zhou et al. 2003, doi:10.1038/nm907 (asymmetry);
    Zaiss et al. 2014, doi:10.1002/nbm.3054 (inverse metric and AREX).
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
    inputs = ("B0",)
    derived_parameters = (
        Parameter("MTRasym", "MTR_{asym}", "1", -1.5, 1.5, "asymmetry of the spectrum at 3.5 ppm"),
        Parameter("MTRrex", "MTR_{Rex}", "1", 0.0, 20.0, "inverse metric of the amides; over T1 it is AREX"),
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
    def signal(acq, A_water, w_water, A_amide, w_amide, A_noe, w_noe, A_mt, w_mt, shift, B0=0.0):
        at = acq.offset - shift - B0
        pools = (
            lorentzian(at - CENTRES["water"], A_water, w_water),
            lorentzian(at - CENTRES["amide"], A_amide, w_amide),
            lorentzian(at - CENTRES["noe"], A_noe, w_noe),
            lorentzian(at - CENTRES["mt"], A_mt, w_mt),
        )
        return 1 - sum(pools)

    @staticmethod
    def slopes(acq, A_water, w_water, A_amide, w_amide, A_noe, w_noe, A_mt, w_mt, shift, B0=0.0):
        pools = {"water": (A_water, w_water), "amide": (A_amide, w_amide), "noe": (A_noe, w_noe), "mt": (A_mt, w_mt)}
        at, signal, moved, columns = acq.offset - shift - B0, 1.0, 0.0, []
        for name, (amplitude, width) in pools.items():
            x, half = at - CENTRES[name], (width / 2).square()
            line = half / (half + x.square())
            by_square = amplitude * line / (half + x.square())  # twice this and x is the fall along x
            signal, moved = signal - amplitude * line, moved - 2 * by_square * x
            columns += [-line, -by_square * x.square() * 2 / width]
        return signal, (*columns, moved)

    @classmethod
    def first_guess(cls, acq, y):
        # water is where the spectrum is darkest; the other lines are shallow and lie at known distances from it
        assert acq.offset is not None
        largest, (smallest, place) = y.amax(-1), y.min(-1)
        depth = 1 - smallest / largest
        usual = {name: torch.full_like(depth, mean) for name, (mean, _, _) in cls.expected.items()}
        found = {"A_water": (depth - usual["A_mt"]).clamp_min(0.05), "shift": acq.offset[place], "S0": largest}
        return usual | found

    @classmethod
    def derived(cls, theta):
        far, near = (cls._at(theta, offset) for offset in (-CENTRES["amide"], CENTRES["amide"]))
        without = near + theta["A_amide"]
        rex = 1 / near.clamp_min(_DARKEST) - 1 / without.clamp_min(_DARKEST)
        return {"MTRasym": far - near, "MTRrex": rex}

    @classmethod
    def _at(cls, theta, offset: float) -> Tensor:
        """Spectrum at an offset from water, wherever the field has moved that."""
        acq = Acquisition.trusted(offset=theta["shift"].new_full((1,), offset))
        own: dict[str, Any] = {p.name: theta[p.name].unsqueeze(-1) for p in cls.parameters}
        own["shift"] = torch.zeros_like(own["shift"])
        return torch.as_tensor(cls.signal(acq, **own)).squeeze(-1)

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
