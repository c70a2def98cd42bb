"""Every signal of gradient directions sees, in each voxel, that voxel's own b-values and directions."""

import numpy as np
import pytest
import torch

from pyroqmri import Acquisition
from pyroqmri.parameter import frame_around
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.signals.own_gradients import GRAD_DEV, OWN_B
from tests.helpers import sphere

DIRECTIONAL = [name for name, signal in SIGNALS.items() if "bvec" in signal.requires]
OF_B = [name for name, signal in SIGNALS.items() if "bval" in signal.requires and "bvec" not in signal.requires]
N = 3
BVAL = np.repeat([0.0, 0.7, 1.8], [1, 9, 9])
BVEC = np.concatenate([np.zeros((1, 3)), sphere(9), sphere(9, seed=1)])
L = np.random.default_rng(0).uniform(-0.1, 0.1, (N, 3, 3))


def seen(k: int) -> dict[str, np.ndarray]:
    """What voxel k sees, by FSL's rule: v = (I + L) g."""
    v = np.stack([(np.eye(3) + L[k]) @ g for g in BVEC])
    length = np.linalg.norm(v, axis=1)
    return {"bval": BVAL * length**2, "bvec": v / np.maximum(length, 1e-12)[:, None]}


def latents(signal: BoundSignal) -> tuple[torch.Tensor, torch.Tensor | None]:
    rng = torch.Generator().manual_seed(1)
    z = 0.4 * torch.randn(2, N, signal.n_latents, generator=rng).double()
    n = len(signal.directions)
    if n == 0:
        return z, None
    axes = torch.nn.functional.normalize(torch.randn(N, n, 3, generator=rng).double(), dim=-1)
    return z, frame_around(axes[:, 0] if n == 1 else axes)


@pytest.mark.parametrize("name", DIRECTIONAL)
def test_signal_and_slopes(name):
    model = SIGNALS[name]
    whole = BoundSignal(model, Acquisition(bval=BVAL, bvec=BVEC)).double()
    z, frame = latents(whole)
    inputs = {GRAD_DEV: torch.from_numpy(L)}
    found = whole(whole.constrain(z, frame), inputs)
    slopes = whole.unconstrained_slopes(z, frame, inputs)
    for k in range(N):
        own = BoundSignal(model, Acquisition(**seen(k))).double()
        here, turned = z[:, k : k + 1], None if frame is None else frame[k : k + 1]
        assert torch.allclose(found[:, k], own(own.constrain(here, turned))[:, 0], atol=1e-6)
        if slopes is not None:
            theirs = own.unconstrained_slopes(here, turned)
            assert theirs is not None
            assert torch.allclose(slopes[0][:, k], theirs[0][:, 0], atol=1e-6)
            assert torch.allclose(slopes[1][:, k], theirs[1][:, 0], atol=1e-5)


@pytest.mark.parametrize("name", OF_B)
def test_signal_of_b(name):
    """Of signals that know b alone; means over directions come with one of their own."""
    model = SIGNALS[name]
    rest = {"te": np.linspace(50, 90, len(BVAL))} if "te" in model.requires else {}
    whole = BoundSignal(model, Acquisition(bval=BVAL, bvec=BVEC, **rest)).double()
    z, frame = latents(whole)
    theta = whole.constrain(z, frame)
    b = torch.from_numpy(np.stack([seen(k)["bval"] for k in range(N)]))
    for inputs in ({GRAD_DEV: torch.from_numpy(L)}, {OWN_B: b}):
        found = whole(theta, inputs)
        for k in range(N):
            own = BoundSignal(model, Acquisition(**seen(k), **rest)).double()
            assert torch.allclose(found[:, k], own(own.constrain(z[:, k : k + 1]))[:, 0], atol=1e-6)
