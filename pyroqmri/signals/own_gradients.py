"""Gradients that deviate from the nominal ones, in each voxel by its own tensor."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition

GRAD_DEV, OWN_B = "grad_dev", "own_b"  # beside the inputs of a signal: (N, 3, 3), and (N, M) in its place


def deviated(acq: Acquisition, grad_dev: Tensor) -> tuple[Tensor, Tensor]:
    r"""b-values ``(N, M)`` and unit directions ``(N, M, 3)`` that voxels with deviations L ``(N, 3, 3)`` see.

    .. math:: v = (I + L)\, g, \qquad b' = b\, |v|^2, \qquad g' = v / |v|

    A weighted measurement without a direction, an average over directions, has the mean of :math:`|v|^2` over all.

    Source: Bammer et al. 2003, doi:10.1002/mrm.10545; Sotiropoulos et al. 2013, doi:10.1016/j.neuroimage.2013.05.057.
    """
    assert acq.bval is not None and acq.bvec is not None
    field = grad_dev + torch.eye(3).to(grad_dev)
    seen = acq.bvec.to(field) @ field.mT
    square = seen.square().sum(-1)
    mean = field.square().sum((-2, -1)).unsqueeze(-1) / 3
    undirected = (acq.bvec == 0).all(-1)
    axes = seen / square.sqrt().clamp_min(1e-12).unsqueeze(-1)
    return acq.bval * torch.where(undirected, mean, square), axes


def has_own_gradients(inputs: Mapping[str, Tensor] | None) -> bool:
    """Whether voxels come with gradients of their own."""
    return bool(inputs) and (GRAD_DEV in inputs or OWN_B in inputs)


def own_acquisition(acq: Acquisition, inputs: Mapping[str, Tensor] | None) -> Acquisition:
    """The settings that voxels see, b-values ``(N, M)`` and directions ``(N, M, 3)``; as they are where none differ."""
    if not inputs or not has_own_gradients(inputs):
        return acq
    settings = acq.settings()
    if OWN_B in inputs:
        return Acquisition.trusted(**settings | {"bval": inputs[OWN_B]})
    bval, bvec = deviated(acq, inputs[GRAD_DEV])
    return Acquisition.trusted(**settings | {"bval": bval, "bvec": bvec})


def at_measurements(inputs: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """The inputs of voxels at some of their measurements."""
    return {name: value[:, index] if name == OWN_B else value for name, value in inputs.items()}


def along(vectors: Tensor, bvec: Tensor | None, several: bool) -> Tensor:
    """Products ``(..., N, 2, M)`` of vectors ``(..., N, 2, 3)`` with directions ``(M, 3)`` or ``(N, M, 3)``.

    With ``several`` axes in each voxel vectors are ``(..., N, K, 2, 3)``.
    """
    assert bvec is not None
    return vectors @ (bvec.mT.unsqueeze(-3) if several and bvec.dim() == 3 else bvec.mT)
