"""One recipe in a comparison: what it takes to train it again on a part of the data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.parts import is_field
from pyroqmri.fitting.train import fit
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS


@dataclass(frozen=True)
class Candidate:
    """A recipe with everything that :func:`pyroqmri.fit` is told beside the data.

    Parameters
    ----------
    signal, recipe, s0, seed, fixed, tied, device
        As in :func:`pyroqmri.fit`.
    """

    signal: str
    recipe: Recipe
    s0: str | float = "measured"
    seed: int = 0
    fixed: dict[str, float] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    device: str = "auto"

    @classmethod
    def of(cls, found: Fit) -> "Candidate":
        """What a fit was told."""
        device = "auto" if found.model is None else found.model.sigma.device.type
        return cls(
            found.signal_name, found.recipe, found.preparation.s0, found.seed, found.fixed, found.tied, device
        )  # fmt: skip

    @property
    def is_bayesian(self) -> bool:
        """Whether it has a posterior to weigh."""
        return self.recipe.estimator == "voxel_model"

    def own(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of some per-voxel inputs that its signal takes."""
        return {name: value for name, value in inputs.items() if name in SIGNALS[self.signal].inputs}

    @property
    def is_field(self) -> bool:
        """Whether its voxels depend on their neighbours, so that it needs whole images."""
        return is_field(self.recipe)

    def train(
        self, y: Tensor, acq: Acquisition, sigma: Any, inputs: Mapping[str, Tensor] | None = None,
        voxels: Tensor | None = None,
    ) -> Fit:  # fmt: skip
        """The recipe fitted to measurements ``(N, M)``; the other arguments as in :func:`pyroqmri.fit`."""
        return fit(
            y, acq, signal=self.signal, recipe=self.recipe, sigma=sigma, s0=self.s0, seed=self.seed,
            device=self.device, fixed=self.fixed, tied=self.tied, inputs=self.own(inputs or {}),
            voxels=voxels if self.is_field else None, causes=False,
        )  # fmt: skip

    def data_seen(self, acq: Acquisition) -> str:
        """A name for what the densities of this candidate are densities of.

        Two candidates of one name see the same measurements, averaged alike: their scores in
        nats can be compared, whatever their prior, likelihood or signal.
        """
        data: dict[str, Any] = {"average": "auto"} | self.recipe.table("data")
        # which measurements are seen is the same of magnitudes and of data with a sign
        preparation = prepare_for(
            SIGNALS[self.signal], acq, torch.ones(2, len(acq)), s0=self.s0, magnitude=False, **data
        )
        groups = [g.tolist() for g in preparation.seen(acq).groups]
        return hashlib.sha256(repr((preparation.s0 == "measured", groups)).encode()).hexdigest()
