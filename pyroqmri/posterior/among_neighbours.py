"""How much of what is known of a voxel its neighbours have stated."""

from collections.abc import Callable

from torch import Tensor

from pyroqmri.distributions import GaussianMixture
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior.sampled import Plain
from pyroqmri.signals import BoundSignal

SHARE, ALONE = "neighbours", "alone"


class AmongNeighbours:
    """What a posterior of placed voxels has besides; nothing of it where voxels are mapped one by one."""

    _summary: dict[str, Tensor]
    scatter: Callable[[Tensor], Tensor]

    @property
    def neighbours(self) -> dict[str, Tensor]:
        r"""Share of what is known of each free parameter that its neighbours have stated ``(N,)``, 0 to 1.

        .. math:: P(\text{near}) \, \Big( 1 - \frac{\mathrm{Var}(u \mid y, \text{near})}{\mathrm{Var}(u \mid y_n)} \Big)

        for an unconstrained parameter u: 0 where a voxel is mapped as it would be by itself, 0.75 where neighbours
        have halved its sd. Empty for a recipe that knows no neighbours.
        """
        names = (key.removeprefix(f"{SHARE} ") for key in self._summary if key.startswith(f"{SHARE} "))
        return {name: self.scatter(self._summary[f"{SHARE} {name}"]) for name in names}

    @property
    def alone(self) -> Tensor | None:
        """Probability that each voxel has left the field and is mapped by itself ``(N,)``, or None without a field."""
        return self.scatter(self._summary[ALONE]) if ALONE in self._summary else None


def stated_by_neighbours(q: Plain, voxels: Voxels, signal: BoundSignal) -> dict[str, Tensor]:
    """Entries of a posterior's summary for placed ``voxels``, each ``(n,)``; none for others.

    Parameters
    ----------
    q
        Posterior whose components are that among neighbours and that of a voxel by itself, once or more.
    """
    if voxels.nearby_loc is None or not isinstance(q, GaussianMixture) or q.logits.shape[-1] % 2:
        return {}
    weight = q.probs.unflatten(-1, (-1, 2)) + 1e-20  # a kind of weight zero has a variance as well
    each = q.scale_tril.square().sum(-1).unflatten(-2, (-1, 2))
    kind = weight.sum(-2)
    variance = (weight.unsqueeze(-1) * each).sum(-3) / kind.unsqueeze(-1)
    share = kind[:, :1] * (1 - variance[:, 0] / variance[:, 1]).clamp(0, 1)
    return {ALONE: kind[:, 1]} | {f"{SHARE} {p.name}": share[:, i] for i, p in enumerate(signal.tissue)}
