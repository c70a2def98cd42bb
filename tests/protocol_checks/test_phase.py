"""Angles by their values alone."""

import numpy as np
import pytest

from pyroqmri.errors import InputError
from pyroqmri.protocol_checks.phase import refuse_phase

TE = np.arange(10.0, 90, 10)


def echoes(seed: int = 0, noise: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Complex echoes ``(N, M)`` of tissue off resonance, and noise ``(K,)`` in air."""
    rng = np.random.default_rng(seed)
    t2, hz, start = (rng.uniform(*ends, size=(500, 1)) for ends in ((50, 120), (-40, 40), (-3, 3)))
    tissue = 1000 * np.exp(-TE / t2 + 1j * (start + 2 * np.pi * hz * TE / 1000))
    air = np.zeros(2000)
    return tuple(x + noise * (rng.normal(size=x.shape) + 1j * rng.normal(size=x.shape)) for x in (tissue, air))


SCALES = {
    "rad": lambda angle: angle,
    "from 0 to 2 pi": lambda angle: angle % (2 * np.pi),
    "Siemens": lambda angle: np.round(angle / np.pi * 4096),
    "12 bits": lambda angle: np.round((angle / np.pi + 1) * 2047.5),
    "thousandths": lambda angle: np.round(1000 * angle),
    "degrees": np.degrees,
}


@pytest.mark.parametrize("scale", SCALES)
def test_angles_in_any_scale_are_refused(scale):
    tissue, air = (SCALES[scale](np.angle(x)) for x in echoes())
    with pytest.raises(InputError, match="contains phase, by its values"):
        refuse_phase(tissue, air, "x.nii.gz")


@pytest.mark.parametrize("air", [None, np.zeros(500)])
def test_angles_in_rad_are_refused_without_air(air):
    with pytest.raises(InputError, match="end at -pi and pi"):
        refuse_phase(np.angle(echoes()[0]), air, "x.nii.gz")


@pytest.mark.parametrize("noise", [5.0, 100.0, 1000.0])
def test_magnitudes_and_real_parts_are_not(noise):
    tissue, air = echoes(1, noise)
    for part in (np.abs, np.real, lambda x: np.pi * np.real(x) / np.abs(tissue).max()):
        refuse_phase(part(tissue), part(air), "x.nii.gz")
        refuse_phase(part(tissue), None, "x.nii.gz")
