"""The command export: the sticks of a fit as tractography programs read them."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pyroqmri.commands.apply import on_scan
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.commands.left_out import earlier_record
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.load import load_fit
from pyroqmri.io import Scan
from pyroqmri.maps import write_volume
from pyroqmri.parameter import Parameter
from pyroqmri.posterior import Posterior
from pyroqmri.progress import progress_bar
from pyroqmri.signals import SIGNALS
from pyroqmri.whole_files import write_bytes

SAMPLES = 50  # per voxel, as bedpostx keeps
BLOCK = 4096  # voxels
N_STICKS = 3


def export_bedpostx(
    fit_dir: PathLike,
    files: ScanFiles | PathLike | None = None,
    *,
    out: PathLike | None = None,
    n_samples: int = SAMPLES,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write posterior samples of sticks under the names that FSL's bedpostx gives its own.

    Parameters
    ----------
    fit_dir
        Folder that :func:`fit_image` wrote with signal ``ball_sticks`` or ``ball_sticks_gamma`` and a recipe that has
        a posterior.
    files
        The image that was fitted, or another one of its protocol; when None, the fitted one is looked for by its name
        in the working folder, in ``fit_dir`` and beside it.
    out
        Folder to write; ``fit_dir`` with ``.bedpostX`` after its name when None.
    n_samples
        Posterior samples per voxel.
    seed
        The same seed gives the same samples.
    overwrite, progress
        As in :func:`fit_image`.

    Returns
    -------
    Path
        The folder, with ``merged_f1samples``, ``merged_th1samples``, ``merged_ph1samples``, ``mean_f1samples``,
        ``dyads1``, ``dyads1_dispersion`` and the same of sticks 2 and 3, ``mean_dsamples`` (and, of
        ``ball_sticks_gamma``, ``mean_d_stdsamples``), ``nodif_brain_mask``, ``bvals``, ``bvecs``, and ``peaks``, which
        MRtrix reads.

    Raises
    ------
    InputError
        When the fit has no sticks or no posterior, or its image cannot be found.
    """
    found, earlier = load_fit(fit_dir), earlier_record(fit_dir)
    if not SIGNALS[found.signal_name].countable or found.guide is None:
        raise InputError(
            f"{fit_dir} is a fit of {found.signal_name} by {found.recipe.name}, and stick samples need signal "
            "ball_sticks with recipe hierarchical"
        )
    files = ScanFiles.of(_image_of(Path(fit_dir)) if files is None else files)
    fit_dir = Path(fit_dir)
    out = fit_dir.with_name(fit_dir.name + ".bedpostX") if out is None else Path(out)
    with output_folder(out, overwrite=overwrite, inputs=[*files.given, fit_dir]) as folder:
        scan = files.read(found.signal_name, earlier)
        _write(folder, scan, *_samples(on_scan(found, scan, earlier), scan, n_samples, seed, progress))
    return out


def _image_of(fit_dir: Path) -> Path:
    """The image that a fit's maps were made of."""
    import json

    folder = fit_dir / "fit" if (fit_dir / "fit").is_dir() else fit_dir
    names = json.loads((folder / "fit.json").read_text()).get("sources") or [""]
    places = (Path.cwd(), fit_dir, fit_dir.parent)
    there = [place / names[0] for place in places if names[0] and (place / names[0]).is_file()]
    if not there:
        raise InputError(
            f"the image {names[0]!r} of {fit_dir} is not in the working folder, nor in or beside {fit_dir}; "
            "name it: pyroqmri export DIR IMAGE --bedpostx"
        )
    return there[0]


def _samples(
    fit: Fit, scan: Scan, n: int, seed: int, progress: bool
) -> tuple[dict[str, NDArray], dict[str, NDArray], NDArray]:
    """Samples ``(N, S)`` of fractions and diffusivity, axes ``(N, S, 3)``, and which voxels were fitted ``(N,)``."""
    names = [p.name for p in SIGNALS[fit.signal_name].parameters if isinstance(p, Parameter)]
    scalars = {name: np.zeros((len(scan.y), n), np.float32) for name in names}
    axes = {f"n{k + 1}": np.zeros((len(scan.y), n, 3), np.float32) for k in range(N_STICKS)}
    fitted = np.zeros(len(scan.y), bool)
    with progress_bar("samples", len(scan.y), progress) as report:
        for i in range(0, len(scan.y), BLOCK):
            where = slice(i, min(i + BLOCK, len(scan.y)))
            posterior = fit.posterior(scan.y[where], sigma=fit.sigma)
            assert isinstance(posterior, Posterior)
            draws = posterior.draws(n, seed=seed + i)
            for table in (scalars, axes):
                for name, values in table.items():
                    values[where] = draws[name].movedim(0, 1).nan_to_num(0.0).numpy()
            fitted[i + posterior.batch.index.numpy()] = True
            report(where.stop)
    return scalars, axes, fitted


def _write(
    folder: Path, scan: Scan, scalars: dict[str, NDArray], axes: dict[str, NDArray], fitted: NDArray[np.bool_]
) -> None:
    """All files; voxels that were not fitted are outside the brain mask."""
    inside, affine = scan.mask.copy(), scan.ref.affine
    inside[scan.mask] = fitted

    def put(name: str, values: NDArray) -> None:
        volume = np.zeros((*scan.mask.shape, *values.shape[1:]), np.float32)
        volume[scan.mask] = values
        write_volume(folder / f"{name}.nii.gz", volume, affine)

    peaks = []
    for k in range(1, N_STICKS + 1):
        f, n = scalars[f"f{k}"], axes[f"n{k}"]
        put(f"merged_f{k}samples", f)
        put(f"merged_th{k}samples", np.arccos(n[..., 2].clip(-1, 1)) * fitted[:, None])
        put(f"merged_ph{k}samples", np.arctan2(n[..., 1], n[..., 0]))
        put(f"mean_f{k}samples", f.mean(1))
        dyad, dispersion = dyads(n)
        put(f"dyads{k}", dyad * fitted[:, None])
        put(f"dyads{k}_dispersion", dispersion * fitted)
        put(f"mean_th{k}samples", np.arccos(dyad[:, 2].clip(-1, 1)) * fitted)
        put(f"mean_ph{k}samples", np.arctan2(dyad[:, 1], dyad[:, 0]) * fitted)
        peaks.append(scanner_axes(dyad, affine) * (f.mean(1) * fitted)[:, None])
    put("mean_dsamples", 1e-3 * scalars["D"].mean(1))
    if "D_std" in scalars:
        put("mean_d_stdsamples", 1e-3 * scalars["D_std"].mean(1))
    put("peaks", np.concatenate(peaks, -1))
    write_volume(folder / "nodif_brain_mask.nii.gz", inside.astype(np.uint8), affine)
    acquisition = scan.acquisition
    assert acquisition.bval is not None and acquisition.bvec is not None
    b, g = 1000 * acquisition.bval.double().numpy(), acquisition.bvec.double().numpy()
    write_bytes(folder / "bvals", (" ".join(f"{x:.6g}" for x in b) + "\n").encode())
    write_bytes(folder / "bvecs", "".join(" ".join(f"{x:.6f}" for x in row) + "\n" for row in g.T).encode())


def dyads(n: NDArray) -> tuple[NDArray, NDArray]:
    """Mean axis ``(N, 3)`` of samples ``(N, S, 3)`` and dispersion ``(N,)``, one less the largest dyadic eigenvalue."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(np.einsum("nsi,nsj->nij", n, n) / n.shape[1]).double())
    return vectors[..., -1].float().numpy(), (1 - values[:, -1]).float().numpy()


def scanner_axes(n: NDArray, affine: NDArray) -> NDArray:
    """Axes ``(..., 3)`` of FSL's gradient frame in scanner coordinates (RAS), as MRtrix has them.

    FSL's frame is that of the voxels, with the first axis turned where the affine's determinant is positive.
    """
    linear = np.asarray(affine, float)[:3, :3]
    turn = linear / np.linalg.norm(linear, axis=0)
    flip = np.array([-1.0 if np.linalg.det(linear) > 0 else 1.0, 1.0, 1.0])
    return ((n * flip) @ turn.T).astype(np.float32)
