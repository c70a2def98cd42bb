"""How intervals fare where the scan is not what a fit takes it for: other noise, other tissue, a second fibre."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.calibration.ranked_samples import ranked_samples
from pyroqmri.calibration.simulated_voxels import OwnTissue, clean_signal, own_tissue
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.neighbours import refuse_field
from pyroqmri.simulate import add_noise

VOXELS = 400  # of each row: a coverage of .90 has a standard error of .015
WELL = 0.8  # of the truths inside 90 % intervals; fewer are pointed out
_DRAWS = 199
_AWAY = 2.0  # sd of the population, in every parameter: a lesion
_SECOND = 0.45  # of the signal
FIELD = (0.6, 1.7)


@dataclass(frozen=True)
class StressRow:
    """One condition that a fit does not expect.

    Parameters
    ----------
    name
        The condition, in words.
    n
        Voxels.
    coverage
        Share of truths inside 90 % intervals, by parameter.
    fine
        Share of the voxels with status fine: those that nothing points out.
    """

    name: str
    n: int
    coverage: dict[str, float]
    fine: float

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def breaks(self) -> list[str]:
        """Parameters whose 90 % intervals contain fewer than 80 % of the truths."""
        return [name for name, share in self.coverage.items() if share < WELL]


def stress(fit: Fit, n: int = VOXELS, seed: int = 0, inputs: Mapping[str, Any] | None = None) -> list[StressRow]:
    """Voxels of the fit's own population under conditions that the fit is not given; nothing is trained.

    Parameters
    ----------
    n
        Voxels of each condition.
    inputs
        Per-voxel inputs of the signal as :func:`pyroqmri.simulate.draw_inputs` takes them; their defaults when None.

    Raises
    ------
    InputError
        When the fit has no population.
    """
    refuse_field(fit.recipe.name, fit.is_field)
    rows = []
    for name, own, y in _conditions(fit, n, seed, inputs):
        simulated = own.voxels(fit, name, y, fit.sigma)
        samples, kept, _, fine = ranked_samples(fit, simulated, seed, _DRAWS)
        inside = {s.parameter: float((np.abs(s.rank - 0.5) < 0.45).mean()) for s in samples}
        rows.append(StressRow(name, len(kept), inside, float(fine.sum()) / len(kept)))
    return rows


def _conditions(
    fit: Fit, n: int, seed: int, inputs: Mapping[str, Any] | None
) -> Iterator[tuple[str, OwnTissue, Tensor]]:
    own, sigma = own_tissue(fit, n, seed, inputs), fit.sigma
    magnitude, coils, counts = fit.preparation.magnitude, fit.preparation.coils, fit.acquisition.n_averages
    kind = ("ncchi" if coils > 1 else "rician") if magnitude else "gaussian"

    def noisy(clean: Tensor, level: Tensor | float, noise: str = kind, of: float = coils, times: int = 1) -> Tensor:
        return add_noise(clean, level, noise, torch.Generator().manual_seed(seed + 1), of, times * counts)

    for factor in (0.8, 1.25):
        yield f"noise {factor:g} times the level that is given", own, noisy(own.clean, factor * sigma)
    if magnitude:
        yield "sum of squares over 4 coils more", own, noisy(own.clean, sigma, "ncchi", 4 * coils)
        yield "mean of 4 times as many magnitudes", own, noisy(own.clean, 2 * sigma, times=4)
    low, high = np.log(FIELD)
    field = torch.exp(torch.linspace(low, high, n)[torch.randperm(n, generator=torch.Generator().manual_seed(seed))])
    yield f"noise {FIELD[0]:g} to {FIELD[1]:g} times the level over the image", own, noisy(own.clean, sigma * field)
    lesion = own_tissue(fit, n, seed, inputs, shift=_AWAY)
    yield f"tissue {_AWAY:g} sd from the population (a lesion)", lesion, noisy(lesion.clean, sigma)
    axis = fit.signal.direction
    if axis is not None and len(fit.signal.directions) == 1:
        other = torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)
        second = clean_signal(fit, own.theta | {axis.name: other}, own.s0, own.inputs)
        mixed = (1 - _SECOND) * own.clean + _SECOND * second
        yield "a second fibre in every voxel", own, noisy(mixed, sigma)


def stress_sentence(rows: list[StressRow]) -> str:
    """What breaks under stress, in words."""
    broken = [
        f"{row.name} ({', '.join(f'{name} {row.coverage[name]:.0%}' for name in row.breaks)}; {row.fine:.0%} of voxels "
        "with status fine)"
        for row in rows
        if row.breaks
    ]
    if not broken:
        return f"Under stress ({len(rows)} conditions) 90 % intervals contain 80 % of the truths or more in every row."
    return f"Under stress 90 % intervals contain fewer than 80 % of the truths with {'; '.join(broken)}."
