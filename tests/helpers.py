"""What several tests share: a signal whose posterior is known, protocols, simulated voxels."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.io.fit_folder import sealed_record
from pyroqmri.likelihoods import GaussianLikelihood
from pyroqmri.parameter import Box, Parameter
from pyroqmri.priors import Prior, StandardNormal
from pyroqmri.signals import MSDKI, BoundSignal, SignalModel
from pyroqmri.simulate import add_noise
from pyroqmri.voxel_model import VoxelModel


@dataclass(frozen=True)
class Unbounded(Parameter):
    """A parameter that is its own unconstrained coordinate."""

    def constrain(self, u: Tensor, box: Box | None = None) -> Tensor:
        return u

    def unconstrain(self, value: Tensor, box: Box | None = None) -> Tensor:
        return value


class Quadratic(SignalModel):
    """A signal that is linear in its parameters: with Gaussian noise every posterior is known."""

    requires = ("te",)
    parameters = tuple(Unbounded(name, name, "1", -50.0, 50.0, "coefficient") for name in "abc")

    @staticmethod
    def signal(acq, a, b, c):
        x = acq.te - 1  # echo times below zero are no scan's
        return a + b * x + c * x.square()


TE = torch.linspace(-0.6, 1.0, 8)
DESIGN = torch.stack([torch.ones(8), TE, TE.square()], -1)
SIGMA = 0.3


def quadratic_signal() -> BoundSignal:
    return BoundSignal(Quadratic, Acquisition(te=TE + 1))


def quadratic_model(prior: Prior | None = None, sigma: float = SIGMA) -> VoxelModel:
    prior = StandardNormal(3) if prior is None else prior
    return VoxelModel(quadratic_signal(), prior, IdentityDecoder(3), GaussianLikelihood(), sigma)


def quadratic_data(n: int, seed: int = 0, loc: Tensor | None = None, tril: Tensor | None = None) -> Tensor:
    """Measurements ``(n, 8)`` of coefficients that are standard normal, or from a given normal."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 3, generator=generator)
    z = z if tril is None else z @ tril.mT
    z = z if loc is None else z + loc
    return z @ DESIGN.mT + SIGMA * torch.randn(n, 8, generator=generator)


def quadratic_posterior(
    y: Tensor, loc: Tensor | None = None, covariance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Exact posterior means ``(N, 3)`` and their common covariance ``(3, 3)`` under a normal prior."""
    loc = torch.zeros(3) if loc is None else loc
    prior = torch.eye(3) if covariance is None else torch.linalg.inv(covariance)
    posterior = torch.linalg.inv(DESIGN.mT @ DESIGN / SIGMA**2 + prior)
    return (y @ DESIGN / SIGMA**2 + prior @ loc) @ posterior, posterior


def sphere(n: int, seed: int = 0) -> np.ndarray:
    """``n`` unit vectors ``(n, 3)``, spread over the sphere."""
    k = np.arange(n) + 0.5
    z, phi = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k + seed
    return np.stack([np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi), z], -1)


def shells(n_b0: int, n_directions: int, *bvals: float, bvec: bool = True) -> Acquisition:
    """``n_b0`` measurements at b = 0, then ``n_directions`` at each b-value in ms/um2."""
    bval = np.concatenate([np.zeros(n_b0), np.repeat(bvals, n_directions)])
    axes = np.concatenate([np.zeros((n_b0, 3)), *[sphere(n_directions, i) for i in range(len(bvals))]])
    return Acquisition(bval=bval, bvec=axes if bvec else None)


def rician(signal: Tensor, sigma: float | Tensor, seed: int = 0) -> Tensor:
    """Magnitudes of noisy complex measurements."""
    return add_noise(signal, sigma, "rician", torch.Generator().manual_seed(seed))


def tissue(n: int, seed: int = 0) -> dict[str, Tensor]:
    """MS-DKI parameters of grey- and white-matter-like voxels, each ``(n,)``."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 2, generator=generator)
    return {"D": 1.1 + 0.15 * z[:, 0], "K": 0.9 + 0.25 * (0.8 * z[:, 1] - 0.6 * z[:, 0])}


def msdki_data(n: int, sigma: float = 0.05, seed: int = 0, s0: float = 1.0) -> tuple[Tensor, Acquisition]:
    """Rician measurements ``(n, M)`` of MS-DKI tissue, and a protocol without directions."""
    acq = shells(4, 6, 1.0, 2.0, bvec=False)
    signal = BoundSignal(MSDKI, acq)(tissue(n, seed))
    return s0 * rician(signal, sigma, seed + 1), acq


def reseal(folder: Path, toml: bytes | None = None, tensors: bytes | None = None, **entries: Any) -> None:
    """Change a saved fit with checksums that agree, as someone who knows them would; an entry of None is taken away."""
    for name, content in (("recipe.toml", toml), ("weights.safetensors", tensors)):
        if content is not None:
            (folder / name).write_bytes(content)
    record = json.loads((folder / "fit.json").read_text()) | entries
    record |= {
        f"{name.partition('.')[0]}_sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("recipe.toml", "weights.safetensors")
    }
    record = {k: v for k, v in record.items() if k != "record_sha256" and not (k in entries and v is None)}
    (folder / "fit.json").write_bytes(sealed_record(record))
