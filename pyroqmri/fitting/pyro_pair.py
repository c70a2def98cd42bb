"""A trained pair for Pyro's own algorithms, which find parameters in Pyro's global parameter store."""

import copy
import itertools
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyroqmri.guides import Guide
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.voxel_model import VoxelModel

_number = itertools.count(1)


class PyroModel(nn.Module):
    """A voxel model whose parameters are in Pyro's parameter store under a name of their own."""

    def __init__(self, module: VoxelModel, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(
        self, y: Tensor | Voxels | int, size: int | None = None, *, sites: bool = False, predict: bool = False
    ) -> Tensor:
        """The Pyro program, see :meth:`VoxelModel.forward`."""
        pyro.module(self.name, self.module)
        return self.module(y, size, sites=sites, predict=predict)


class PyroGuide(nn.Module):
    """The guide of a :class:`PyroModel`; takes the same arguments and ignores ``sites`` and ``predict``."""

    def __init__(self, module: Guide, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(
        self, y: Tensor | Voxels, size: int | None = None, *, sites: bool = False, predict: bool = False
    ) -> None:
        """The Pyro program, see :meth:`Guide.forward`."""
        pyro.module(self.name, self.module)
        self.module(y, size)


class PyroPair(NamedTuple):
    """Copies of a trained model and guide for vanilla Pyro: ``SVI(pair.model, pair.guide, optimiser, pair.elbo())``.

    Both take prepared voxels (:meth:`pyroqmri.Fit.prepare`). Training them changes neither the fit nor another pair.
    """

    model: PyroModel
    guide: PyroGuide

    def elbo(self, n_particles: int = 1) -> ELBO:
        """The ELBO that the prior needs: one that enumerates, for a mixture."""
        return self.model.module.prior.elbo(n_particles)


def pyro_pair(model: VoxelModel, guide: Guide, name: str, unique: bool = True) -> PyroPair:
    """Copies of a pair under ``name``, made one that no other pair of this process has where ``unique``."""
    name = f"{name}.{next(_number)}" if unique else name
    # copied at once: the guide's reference to its model becomes one to the copy
    copied, its_guide = copy.deepcopy((model, guide))
    return PyroPair(PyroModel(copied, f"{name}.model"), PyroGuide(its_guide, f"{name}.guide"))


def in_default_dtype(*modules: Any) -> Any:
    """Modules that belong together, in torch's default dtype: themselves, or copies where they were made in another."""
    dtype = torch.get_default_dtype()
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers()) if t.is_floating_point()]
    if all(t.dtype == dtype for t in tensors):
        return modules
    return tuple(m.to(dtype) for m in copy.deepcopy(modules))
