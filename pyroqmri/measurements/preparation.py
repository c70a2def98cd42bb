"""From raw measurements to what a voxel model sees."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyroqmri.acquisition import FAR_OFFSET, NEGLIGIBLE_B, WEIGHTED_ABOVE, Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.blocks import Blocks
from pyroqmri.measurements.own_protocol import OWN, Entries, of_own_protocol, what_counts
from pyroqmri.measurements.s0 import s0_note, s0_volumes, settled_s0
from pyroqmri.measurements.shells import alike
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import SignalModel


@dataclass(frozen=True)
class Batch:
    """Voxels that can be fitted, where they stand among all, and the status of all ``(N,)``."""

    voxels: Voxels
    index: Tensor
    status: Tensor
    reference: Tensor  # what each fitted voxel was divided by, (n,)

    def placed(self, position: Tensor | None, covariates: Mapping[str, Tensor]) -> "Batch":
        """The same with positions ``(N, 3)`` and covariates ``(N,)`` of all voxels, where they can be fitted."""
        where = None if position is None else position[self.index]
        known = {name: value[self.index] for name, value in covariates.items()}
        return replace(self, voxels=replace(self.voxels, position=where, covariates=known))


class Seen(NamedTuple):
    """What a model sees of a scan.

    Attributes
    ----------
    acquisition
        Settings of the M' entries: of single measurements, or means over shells.
    groups
        Indices of the scan's measurements behind each entry.
    n_average
        Magnitudes that each entry is the mean of ``(M',)``, or None where they are single.
    n_s0
        Magnitudes that a measured S0 is made of; None where S0 has no error, or is a parameter.
    """

    acquisition: Acquisition
    groups: list[Tensor]
    n_average: Tensor | None
    n_s0: int | None


@dataclass(frozen=True)
class Preparation:
    """How raw measurements become what the model sees; part of a fit, so that new data are treated alike.

    Parameters
    ----------
    s0
        "measured": each voxel is divided by its own level without encoding (b0, or saturation far
        off), and those measurements, which then say nothing more, are left out; generative models average
        over the error that is left in it (:mod:`pyroqmri.laplace.measured_s0`). "inferred": S0 is
        a parameter, and all voxels are divided by one scale. A number: the known S0 of all voxels.
    scale
        What all voxels are divided by, unless S0 is measured.
    average
        Average directions within a shell.
    magnitude
        Values cannot be negative; a measured S0 is freed of the Rician bias.
    shortest_te
        Measurements at shorter echo times (ms) are left out.
    negligible_b
        Measurements up to this b-value (ms/um2) are S0 itself: the signal's own limit.
    coils
        Channels whose sum of squares a magnitude is the root of; one is Rician.
    """

    s0: str | float
    scale: float
    average: bool
    magnitude: bool
    shortest_te: float = 0.0
    negligible_b: float = NEGLIGIBLE_B
    coils: float = 1.0

    def record(self) -> dict[str, Any]:
        """As plain values, for a file."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any], acq: Acquisition) -> "Preparation":
        """From plain values out of a file, and the acquisition that they were found at."""
        if "negligible_b" in record or acq.bval is None:
            return cls(**record)
        # older fits took any such b for S0 where it was within 0.008 of the lowest
        return cls(**record, negligible_b=min(WEIGHTED_ABOVE, float(acq.bval.min()) + 0.008))

    def note(self, acq: Acquisition) -> str:
        """A sentence on what S0 is made of."""
        return s0_note(self.s0, acq, self.negligible_b)

    def s0_volumes(self, acq: Acquisition) -> Tensor:
        """Mask ``(M,)`` of the measurements that S0 is measured on.

        Raises
        ------
        InputError
            When S0 is measured, and no measurement is S0 itself.
        """
        if self.s0 != "measured":
            return torch.zeros(len(acq), dtype=torch.bool)
        which = s0_volumes(acq, self.negligible_b)
        if not which.any():
            what = (
                f"saturated beyond {FAR_OFFSET:g} ppm"
                if acq.bval is None
                else f"at b up to {1000 * self.negligible_b:g} s/mm2"
            )
            raise InputError(f"S0 is measured, and no measurement is {what}; use s0 'inferred' or give its value")
        return which

    def seen(self, acq: Acquisition) -> Seen:
        """What a model sees of a scan's measurements.

        Raises
        ------
        InputError
            When nothing is left once S0 is measured.
        """
        groups = self._groups(acq)
        counts = acq.n_averages
        n_s0 = int(counts[self.s0_volumes(acq)].sum()) if self.s0 == "measured" else None
        if not self.average:
            kept = torch.cat(groups)
            return Seen(acq[kept], groups, counts[kept] if bool((counts > 1).any()) else None, n_s0)
        n_average = torch.stack([counts[g].sum() for g in groups])
        means = {n: torch.stack([v[g].mean() for g in groups]) for n, v in acq.settings().items() if n != "bvec"}
        return Seen(Acquisition(**means), groups, n_average, n_s0)

    def _groups(self, acq: Acquisition) -> list[Tensor]:
        """Indices of the measurements behind each entry that the model sees."""
        keep = ~self.s0_volumes(acq)
        if self.shortest_te and acq.te is not None:
            keep &= acq.te >= self.shortest_te
        index = torch.nonzero(keep).squeeze(-1)
        if len(index) == 0:
            raise InputError("every measurement is a b0, so nothing is left to fit once S0 is measured")
        if not self.average:
            return [i[None] for i in index]
        groups = [volumes[keep.numpy()[volumes]] for volumes in alike(acq)]
        return [torch.from_numpy(volumes) for volumes in groups if len(volumes)]

    def __call__(self, y: Tensor, sigma: Tensor, acq: Acquisition, inputs: Mapping[str, Tensor] | None = None) -> Batch:
        """Voxels of raw measurements ``(N, M)`` with raw noise level ``()`` or ``(N,)``."""
        y, sigma, given, known = self._known(y, sigma, acq, inputs)
        blocks = self._blocks(acq)
        # one array for all, because entries may be as many as the measurements
        seen = sigma.new_empty(len(y), blocks.n_entries)
        parts, n = [], 0
        for _, looked in blocks.look(y, sigma, known):
            blocks.see(looked, seen[n : n + len(looked.y)])
            parts.append(looked[1:])
            n += len(looked.y)
        status, fitted, reference = (torch.cat(each) for each in zip(*parts, strict=True))
        index = torch.nonzero(fitted).squeeze(-1)
        given = {name: value[index] for name, value in given.items()}
        voxels = Voxels(seen[:n], (sigma[index] / reference).unsqueeze(-1), inputs=given)
        if set(OWN) & set(given):
            voxels = of_own_protocol(voxels, acq, self._entries(acq))
        return Batch(voxels, index, status, reference)

    def noise(self, y: Tensor, sigma: Tensor, acq: Acquisition, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Noise level ``(n, 1)`` of the voxels that can be fitted, over what they are divided by; as a batch has it."""
        y, sigma, _, known = self._known(y, sigma, acq, inputs)
        blocks = self._blocks(acq)
        parts = [sigma[at][looked.fitted] / looked.reference for at, looked in blocks.look(y, sigma, known)]
        return torch.cat(parts).unsqueeze(-1)

    def _known(
        self, y: Tensor, sigma: Tensor, acq: Acquisition, inputs: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """Measurements, noise level ``(N,)`` and inputs, and the voxels ``(N,)`` bool that lack neither of the latter.

        Measurements that do not count are replaced.
        """
        sigma, given, known = _known(y, sigma, acq, inputs)
        if not set(OWN) & set(given):
            return y, sigma, given, known
        y, given, usable = what_counts(y, given, acq, self._entries(acq))
        return y, sigma, given, known & usable

    def _entries(self, acq: Acquisition) -> Entries:
        return Entries(self._groups(acq), self.average, self.s0_volumes(acq), self.magnitude)

    def _blocks(self, acq: Acquisition) -> Blocks:
        groups, which = self._groups(acq), self.s0_volumes(acq)
        share = None
        if self.average:
            share = torch.zeros(len(groups), len(acq))
            for k, volumes in enumerate(groups):
                share[k, volumes] = 1 / len(volumes)
        scale = None if self.s0 == "measured" else self.scale
        s0 = torch.nonzero(which).squeeze(-1)
        return Blocks(torch.cat(groups), share, s0, acq.n_averages[which], scale, self.magnitude, self.coils)


def _known(
    y: Tensor, sigma: Tensor, acq: Acquisition, inputs: Mapping[str, Tensor] | None
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Noise level ``(N,)`` and inputs in the default dtype, and where they are all known ``(N,)`` bool."""
    if y.dim() != 2 or y.shape[1] != len(acq):
        raise InputError(f"y must be (voxels, measurements) = (N, {len(acq)}), got {tuple(y.shape)}")
    kind = torch.get_default_dtype()
    sigma, given = sigma.to(kind).expand(len(y)), {k: v.to(kind) for k, v in (inputs or {}).items()}
    finite = [value.isfinite().flatten(1).all(-1) if name in OWN else value.isfinite() for name, value in given.items()]
    return sigma, given, (sigma > 0) & torch.stack([sigma.isfinite(), *finite]).all(0)


def prepare_for(
    signal: type[SignalModel],
    acq: Acquisition,
    y: Tensor,
    *,
    s0: str | float,
    average: str,
    magnitude: bool,
    first_echo: int = 1,
    coils: float = 1.0,
) -> Preparation:
    """Decide how measurements of a signal are treated.

    Parameters
    ----------
    s0
        As in :class:`Preparation`; "measured" becomes "inferred" where no measurement is S0 itself.
    average
        "auto" averages directions for a signal that describes the mean over them, when
        there are directions; without gradient directions measurements are taken as they
        are. "shells" and "volumes" say it outright.
    first_echo
        The first of the echo times in rising order that is used, counted from 1.

    Raises
    ------
    InputError
        When an argument is not one of its values.
    """
    acq.require(*signal.requires)
    s0 = settled_s0(signal, s0, acq)
    if signal.signed and magnitude:
        raise InputError(f"{signal.__name__} describes data with a sign, which rician has not; use likelihood gaussian")
    if s0 not in ("measured", "inferred") and not (isinstance(s0, int | float) and s0 > 0):
        raise InputError(f"s0 must be 'measured', 'inferred' or a value above zero, got {s0!r}")
    if average not in ("auto", "shells", "volumes"):
        raise InputError(f"data.average must be 'auto', 'shells' or 'volumes', got {average!r}")
    shells = averages_shells(signal, average, acq)
    scale = 1.0
    if s0 == "inferred":
        finite = y[torch.isfinite(y).all(-1)].abs()
        scale = float(torch.quantile(finite.amax(-1)[:100_000], 0.98)) if len(finite) else 1.0
        scale /= signal.amplitude(acq)
    elif s0 != "measured":
        scale = float(s0)
    shortest = shortest_te(acq, first_echo)
    known = s0 if isinstance(s0, str) else float(s0)
    return Preparation(known, scale, shells, magnitude, shortest, float(signal.negligible_b), coils)


def averages_shells(signal: type[SignalModel], average: str, acq: Acquisition) -> bool:
    """Whether directions are averaged within a shell; ``average`` as in :func:`prepare_for`."""
    return signal.powder_average and (average == "shells" or (average == "auto" and acq.bvec is not None))


def shortest_te(acq: Acquisition, first_echo: int) -> float:
    """The echo time in ms below which measurements are left out, 0 for none; ``first_echo`` as in prepare_for."""
    if first_echo == 1:
        return 0.0
    n = 0 if acq.te is None else len(acq.te.unique())
    if not 1 <= first_echo <= n:
        raise InputError(f"data.first_echo is {first_echo}, and the scan has {n} echo times; give one of them, from 1")
    assert acq.te is not None
    return float(acq.te.unique()[first_echo - 1])
