"""Two trains of readouts after an inversion."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.known_b1 import EXPECTED, FREE_B1, POPULATION

UNIFORM, FIRST, SECOND = 0, 1, 2  # what a measurement is
_EFFICIENCY = 0.96  # of the adiabatic inversion, Marques et al. 2010


def mp2rage_acquisition(
    ti: Sequence[float],
    flip: Sequence[float],
    tr: float,
    tr_readout: float,
    shots: float | Sequence[float],
    *,
    uniform: bool = True,
) -> Acquisition:
    """Settings of an MP2RAGE scan.

    Parameters
    ----------
    ti, flip
        Of both trains: times from the inversion to the centre of k-space in ms, and flip angles in rad.
    tr, tr_readout
        Times between inversions, and between the excitations of a train, in ms.
    shots
        Excitations of a train, half of them before the centre of k-space; or those before it and those after it.
    uniform
        Whether the measurement is the uniform image, one volume; else the pair, two volumes that keep their sign.

    Raises
    ------
    InputError
        When there are not two times and two angles, or the trains do not fit between the inversions.
    """
    counts = [float(n) for n in shots] if isinstance(shots, Sequence) else [float(shots) / 2] * 2
    if len(ti) != 2 or len(flip) != 2 or len(counts) != 2:
        raise InputError("MP2RAGE has two inversion times, two flip angles, and shots before and after the centre")
    before, after = (n * tr_readout for n in counts)
    between = ti[1] - ti[0] - before - after
    gaps = {"first train": ti[0] - before, "second train": between, "inversion": tr - ti[1] - after}
    for what, gap in gaps.items():
        if not gap >= 0:
            raise InputError(
                f"MP2RAGE: {gap:g} ms are left before the {what}, with inversion times {ti[0]:g} and {ti[1]:g} ms, "
                f"{before:g} ms of readout before each and {after:g} ms after it, and {tr:g} ms between inversions; "
                "correct the one that is wrong"
            )
    readout = [UNIFORM] if uniform else [FIRST, SECOND]
    own = [max(0, which - 1) for which in readout]
    columns = {
        "readout": readout, "ti": [ti[i] for i in own], "flip": [flip[i] for i in own],
        "ti_other": [ti[1 - i] for i in own], "flip_other": [flip[1 - i] for i in own],
        "tr": tr, "tr_readout": tr_readout, "shots_before": counts[0], "shots_after": counts[1],
    }  # fmt: skip
    settings = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in columns.items()}
    return Acquisition(**{name: value.expand(len(own)) for name, value in settings.items()})


class MP2RAGE(SignalModel):
    r"""Two gradient-echo trains after an inversion: their uniform image, or the pair itself with its sign.

    .. math:: UNI = \frac{S_1 S_2}{S_1^2 + S_2^2}, \qquad S_{1,2} = \sin(B_1 \alpha_{1,2})\, m_{1,2}

    The longitudinal magnetisation m at the centre of each train is that of the steady state of the whole cycle: an
    inversion of efficiency 0.96, recovery, n excitations, recovery, n excitations, recovery. Between -0.5 and 0.5 the
    uniform image has neither S0 nor receive sensitivity in it. Magnitudes of the pair leave the sign of the first image
    open, and with it T1. B1 is the actual over the nominal flip angle (`--input B1=map.nii.gz`). Noise of the uniform
    image is taken as Gaussian and equal everywhere.

    Source: Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002.
    """

    requires = (
        "readout", "ti", "flip", "ti_other", "flip_other", "tr", "tr_readout", "shots_before", "shots_after",
    )  # fmt: skip
    source = "doi:10.1016/j.neuroimage.2009.10.002"
    suffix = "T1map"
    signed = True
    inputs = ("B1",)
    parameters = (Parameter("T1", "T_1", "ms", 100.0, 6000.0, "longitudinal relaxation time"),)
    expected = {"T1": (1200.0, 500.0, 350.0)}
    expected_source = "Stanisz et al. 2005, doi:10.1002/mrm.20605"
    typical_tissue = {
        "white matter": {"T1": (850.0, 50.0)},
        "grey matter": {"T1": (1350.0, 90.0)},
        "csf": {"T1": (4200.0, 250.0)},
    }
    default_protocol = mp2rage_acquisition(
        (700.0, 2500.0), (0.0698132, 0.0872665), 5000.0, 7.0, (80, 96), uniform=False
    )  # fmt: skip

    @staticmethod
    def signal(acq, T1, B1=1.0):
        second = acq.readout == SECOND
        times = torch.where(second, acq.ti_other, acq.ti), torch.where(second, acq.ti, acq.ti_other)
        flips = torch.where(second, acq.flip_other, acq.flip), torch.where(second, acq.flip, acq.flip_other)
        angles = [B1 * flip for flip in flips]
        first_train, second_train = cycle(acq, T1, times, angles)
        one, two = torch.sin(angles[0]) * first_train, torch.sin(angles[1]) * second_train
        uniform = one * two / (one.square() + two.square())
        return torch.where(acq.readout == UNIFORM, uniform, torch.where(second, two, one))

    @classmethod
    def has_s0(cls, acq):
        return not bool((acq.readout == UNIFORM).all())

    @classmethod
    def amplitude(cls, acq):
        return float(cls.signal(acq, torch.tensor(1000.0)).abs().max()) if cls.has_s0(acq) else 1.0


def cycle(acq, T1: Tensor, times: Sequence[Tensor], angles: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Longitudinal magnetisation at the centres of both trains, in the steady state, over its equilibrium."""
    readout = acq.tr_readout * acq.shots_before, acq.tr_readout * acq.shots_after
    step = torch.exp(-acq.tr_readout / T1)

    def after(part: tuple[Tensor, Tensor], keep: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        return keep * part[0], keep * part[1] + gain

    def recover(part: tuple[Tensor, Tensor], time: Tensor) -> tuple[Tensor, Tensor]:
        left = torch.exp(-time / T1)
        return after(part, left, 1 - left)

    def excite(part: tuple[Tensor, Tensor], angle: Tensor, shots: Tensor) -> tuple[Tensor, Tensor]:
        left = torch.cos(angle) * step
        return after(part, left**shots, (1 - step) * (1 - left**shots) / (1 - left))

    # m of the cycle's start becomes keep m + gain
    part = recover((torch.full_like(step, -_EFFICIENCY), torch.zeros_like(step)), times[0] - readout[0])
    centres = []
    for i, rest in enumerate((times[1] - times[0] - readout[0] - readout[1], acq.tr - times[1] - readout[1])):
        part = excite(part, angles[i], acq.shots_before)
        centres.append(part)
        part = recover(excite(part, angles[i], acq.shots_after), rest)
    start = part[1] / (1 - part[0])
    return centres[0][0] * start + centres[0][1], centres[1][0] * start + centres[1][1]


class MP2RAGEFreeB1(MP2RAGE):
    r"""MP2RAGE where no map of B1 was measured: B1 is fitted with a known population.

    .. math:: UNI = \frac{S_1 S_2}{S_1^2 + S_2^2}, \qquad S_{1,2} = \sin(B_1 \alpha_{1,2})\, m_{1,2}, \qquad
              B_1 \sim N(1, 0.1^2)

    The measurements determine T1 at each B1 and carry almost no information on B1 itself; intervals of `hierarchical`
    include what that leaves open, which depends on the timing. The population of B1 is not learned. Estimates of one
    voxel by itself do not use it; a map of B1 and `mp2rage` are better.

    Source: Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002.
    """

    inputs = ()
    parameters = (*MP2RAGE.parameters, FREE_B1)
    expected = {**MP2RAGE.expected, "B1": EXPECTED}
    nuisance = {"B1": POPULATION}
    typical_tissue = {name: {**tissue, "B1": POPULATION} for name, tissue in MP2RAGE.typical_tissue.items()}
