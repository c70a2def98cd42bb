"""Groups of volumes whose noise-free signal is smooth or the same, which noise is measured on."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special
from scipy.linalg import block_diag

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.shells import alike

MIN_DOF = 3


@dataclass(frozen=True)
class Group:
    """Volumes whose noise-free signal lies in the span of ``basis`` (n, p), orthonormal.

    The span of its first ``n_smooth`` columns holds the signal's outline, with less noise.
    ``trusted`` says that what is left is noise in tissue as well as in theory.
    """

    volumes: np.ndarray
    basis: np.ndarray
    n_smooth: int
    trusted: bool
    words: str

    @property
    def dof(self) -> int:
        """Degrees of freedom of what is left."""
        return self.basis.shape[0] - self.basis.shape[1]


def groups_of(acq: Acquisition) -> list[Group]:
    """Groups with enough volumes to measure noise on, those without encoding left out, in rising b."""
    known = vars(acq)  # settings do not change, and spherical harmonics take a while
    if "_noise_groups" not in known:
        known["_noise_groups"] = _groups_of(acq)
    return list(known["_noise_groups"])


def _groups_of(acq: Acquisition) -> list[Group]:
    found = []
    for k, volumes in enumerate(alike(acq)):
        if acq.bval is None:
            words = f"setting {k}: {len(volumes)} repeats"
            group = Group(volumes, constant(len(volumes)), 1, True, words)
        elif bool(acq.b0[volumes].all()):
            continue
        else:
            group = _of_shell(volumes, acq)
        if group is not None and group.dof:
            found.append(group)
    enough = [group for group in found if group.dof >= MIN_DOF]
    pairs = [group for group in found if group.basis.shape[1] == 1]
    return enough if enough or sum(group.dof for group in pairs) < MIN_DOF else [_together(pairs)]


def _together(pairs: list[Group]) -> Group:
    """Few repeats of several settings as one group."""
    volumes = np.concatenate([group.volumes for group in pairs])
    basis = np.asarray(block_diag(*(group.basis for group in pairs)))
    words = f"{len(pairs)} settings: {len(volumes)} volumes"
    return Group(volumes, basis, len(pairs), all(group.trusted for group in pairs), words)


def repeats_without_encoding(acq: Acquisition) -> np.ndarray:
    """The largest set of volumes of one negligible b-value and equal settings; empty without b-values."""
    if acq.bval is None:
        return np.zeros(0, dtype=int)
    sets = [volumes for volumes in alike(acq) if bool(acq.b0[volumes].all())]
    return max(sets, key=len, default=np.zeros(0, dtype=int))


def constant(n: int) -> np.ndarray:
    """The basis ``(n, 1)`` of what does not change."""
    return np.full((n, 1), n**-0.5)


def _of_shell(volumes: np.ndarray, acq: Acquisition) -> Group | None:
    assert acq.bval is not None
    b = acq.bval.double().cpu().numpy()[volumes]
    name = f"b {b.mean():.3g}"
    if acq.bvec is None:
        # nobody knows whether a shell repeats one direction
        group = Group(volumes, constant(len(b)), 1, False, f"{name}: {len(b)} repeats")
    else:
        group = _directional(volumes, acq.bvec.double().cpu().numpy()[volumes], name)
    if group is None or np.ptp(b) < 1e-3 * b.mean():
        return group
    # within a shell the signal falls with b
    slope = (b - b.mean()) / b.std()
    left = slope - group.basis @ (group.basis.T @ slope)
    norm = np.linalg.norm(left)
    if norm < 1e-3 * np.sqrt(len(b)):
        return group
    return replace(group, basis=np.column_stack([group.basis, left / norm]))


def _directional(volumes: np.ndarray, g: np.ndarray, name: str) -> Group | None:
    """A group along axes g (n, 3) whose basis holds any smooth signal, or None with too few axes."""
    n = len(g)
    turned = g * np.where(_first_sign(g) < 0, -1.0, 1.0)[:, None]
    axes, label = np.unique(np.round(turned, 3) + 0.0, axis=0, return_inverse=True)
    if n - len(axes) >= max(MIN_DOF, 0.4 * n):  # repeats make no assumption on smoothness
        one_hot = np.eye(len(axes))[label.ravel()]
        basis = one_hot / np.sqrt(one_hot.sum(0))
        return Group(volumes, basis, len(axes), True, f"{name}: {n} volumes along {len(axes)} axes")
    orders = [order for order in (2, 4, 6, 8) if (order + 1) * (order + 2) / 2 <= 0.65 * len(axes)]
    if not orders:
        return None
    q, r = np.linalg.qr(even_harmonics(g, orders[-1]))
    independent = np.abs(np.diag(r)) > 1e-6 * np.abs(r[0, 0])
    words = f"{name}: {n} directions, order {orders[-1]}"
    return Group(volumes, q[:, independent], int(independent[:15].sum()), orders[-1] > 2, words)


def _first_sign(g: np.ndarray) -> np.ndarray:
    """Sign of the first component that is not small, so that g and -g can be told to be one axis."""
    signs = np.sign(np.where(np.abs(g) > 5e-4, g, 0.0))
    return signs[np.arange(len(g)), np.argmax(signs != 0, axis=1)]


def even_harmonics(g: np.ndarray, order: int) -> np.ndarray:
    """Real spherical harmonics ``(n, (order + 1)(order + 2) / 2)`` of even degree."""
    polar, azimuth = np.arccos(np.clip(g[:, 2], -1, 1)), np.arctan2(g[:, 1], g[:, 0])
    columns = []
    for degree in range(0, order + 1, 2):
        for m in range(degree + 1):
            value = special.sph_harm_y(degree, m, polar, azimuth)
            columns += [value.real, value.imag] if m else [value.real]
    return np.stack(columns, 1)
