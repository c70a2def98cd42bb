"""The command simulate: a scan whose truth is known, in files that fit reads by itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri import __version__
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike, ProtocolFiles, write_protocol
from pyroqmri.commands.simulated_inputs import inputs_on_grid
from pyroqmri.commands.simulated_own_protocol import everywhere, own_on_grid, write_inputs
from pyroqmri.errors import InputError
from pyroqmri.io.map_names import file_unit, map_suffix
from pyroqmri.maps import scatter, write_bytes, write_json, write_volume
from pyroqmri.measurements.own_protocol import OWN
from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals import SIGNALS, BoundSignal, SignalModel
from pyroqmri.simulate import CLASSES, NOISES, brain_phantom, cluster_classes, clusters, simulate, uniform
from pyroqmri.simulate.protocols import default_protocol

PHANTOMS = ("brain", "clusters", "uniform")
SHAPE = (32, 32, 8)
IMAGE = "sub-sim_dwi.nii.gz"  # whatever the signal, so that scripts know it
RECORD = "simulate.json"
S0 = 1000.0
# 2 mm, and the first axis turned as most scanners write it: FSL's bvecs then need no flip
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])
LONGEST_AXIS = 32767  # of NIfTI
MOST_NUMBERS = 1 << 27  # half a gigabyte on disk, some four times that in memory


@dataclass(frozen=True)
class Tissue:
    """Parameters of the N voxels of ``mask`` (X, Y, Z), each ``(N,)``, and their classes ``(N,)``, from 0, if known.

    ``inputs`` are per-voxel inputs of the signal, each ``(N,)``, weights ``(N, M)`` and deviations ``(N, 3, 3)``.
    """

    theta: dict[str, Tensor]
    mask: np.ndarray
    labels: Tensor | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)


def simulate_files(
    signal: str,
    phantom: str,
    *,
    out: PathLike,
    snr: float | None = None,
    shape: tuple[int, int, int] = SHAPE,
    noise: str | None = None,
    coils: float = 1.0,
    seed: int = 0,
    protocol: ProtocolFiles | None = None,
    ranges: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    weights: PathLike | None = None,
    grad_dev: PathLike | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Simulate a scan and write image, protocol, mask, true maps and ``simulate.json``; the same call, the same bytes.

    Parameters
    ----------
    signal
        Name of the signal.
    phantom
        ``brain`` (:func:`pyroqmri.simulate.brain_phantom`), or a volume full of voxels of ``clusters`` or
        ``uniform``.
    out
        Folder to write; it has its name only once everything is in it.
    snr
        S0 over sigma; needed unless ``noise`` is ``none``.
    shape
        Voxels along each axis.
    noise
        ``rician``, ``gaussian``, ``ncchi`` or ``none``; Rician when None, Gaussian for signals that keep their sign.
    coils
        Number of coils of ``ncchi`` noise.
    seed
        Same seed, same tissue and noise.
    protocol
        Files of its settings; the signal's default protocol without one.
    ranges
        Narrower bounds of parameters of ``uniform``, lower and upper.
    inputs
        Per-voxel inputs of the signal by name: a number, a range ``[low, high]`` of uniform values, or a map of the
        phantom's shape. Each is written beside the image, for the fit.
    weights, grad_dev
        Images of the phantom's shape: what counts of each measurement (:func:`pyroqmri.simulate.simulate`), and nine
        volumes of the gradients' deviations. They are written beside the image, for the fit.
    fixed, tied
        Parameters with one value everywhere, or with another's values.
    overwrite
        Replace ``out``, if pyroqmri wrote it.

    Raises
    ------
    InputError
        When the call or a file is wrong.
    """
    model = _model(signal)
    kind = ("gaussian" if model.signed else "rician") if noise is None else noise
    _check(signal, phantom, snr, shape, kind, coils)
    files = {} if protocol is None else protocol.settings
    own = {"weights": weights, "grad_dev": grad_dev}
    with output_folder(out, overwrite=overwrite, inputs=_paths(files, {**(inputs or {}), **own})) as folder:
        protocol = ProtocolFiles() if protocol is None else protocol
        acquisition = protocol.acquisition() if files else protocol.averaged(default_protocol(model))
        _check_protocol(signal, acquisition, shape)
        tissue = _tissue(signal, phantom, shape, seed, _bounds(model, phantom, acquisition, ranges))
        tissue = _with(tissue, model, acquisition, inputs_on_grid(model, inputs, tissue.mask, seed), fixed, tied)
        tissue = replace(tissue, inputs=tissue.inputs | own_on_grid(weights, grad_dev, tissue.mask, acquisition))
        sigma = 0.0 if snr is None else S0 / snr
        _write_image(folder / IMAGE, model, acquisition, tissue, sigma, (kind, coils), seed)
        call = {"signal": signal, "phantom": phantom, "snr": snr, "shape": list(shape), "noise": kind, "seed": seed}
        call |= {"coils": coils} if kind == "ncchi" else {}
        call |= {} if protocol.averages is None else {"averages": str(protocol.averages)}
        call |= {"protocol": {k: str(v) for k, v in files.items()} or "default", "ranges": dict(ranges or {})}
        call |= {"inputs": {k: _plain(v) for k, v in (inputs or {}).items()}} if inputs else {}
        call |= {name: str(path) for name, path in own.items() if path is not None}
        call |= {"fixed": dict(fixed or {}), "tied": dict(tied or {})} if fixed or tied else {}
        extra = {"Description": f"simulated, phantom {phantom}, signal {signal}", "Simulated": True}
        write_protocol(folder / IMAGE, acquisition, extra)
        _write_truth(folder, model, tissue)
        counts = {"n_volumes": len(acquisition), "n_voxels": int(tissue.mask.sum())}
        record = {"GeneratedBy": "pyroqmri", "version": __version__, "call": call, "s0": S0, "sigma": sigma, **counts}
        write_json(folder / RECORD, record)
    return Path(out)


def _model(signal: str) -> type[SignalModel]:
    if signal not in SIGNALS:
        raise InputError(f"there is no signal {signal!r}; there are {', '.join(SIGNALS)}")
    return SIGNALS[signal]


def _check(signal: str, phantom: str, snr: float | None, shape: tuple[int, int, int], noise: str, coils: float) -> None:
    """Refuse what the numbers of a call alone show to be wrong."""
    if phantom not in PHANTOMS:
        raise InputError(f"there is no phantom {phantom!r}; there are {', '.join(PHANTOMS)}")
    if noise not in NOISES:
        raise InputError(f"noise is {noise!r}; choose one of {', '.join(NOISES)}")
    if (noise == "ncchi") != (coils > 1) or not 1 <= coils <= 256:
        raise InputError("--noise ncchi needs --coils of 2 to 256, and other noise has none; give both or neither")
    if noise in ("rician", "ncchi") and SIGNALS[signal].signed:
        raise InputError(f"{signal} is of data that keep their sign, and magnitudes have none; use --noise gaussian")
    if noise == "none" and snr is not None:
        raise InputError(f"snr is {snr:g} and noise is none; leave one of them out")
    if noise != "none" and snr is None:
        raise InputError("no noise level: give --snr, which is S0 over sigma, or --noise none")
    if snr is not None and not (snr > 0 and math.isfinite(snr)):
        raise InputError(f"snr must be above zero and finite, got {snr:g}")
    if len(shape) != 3 or not all(1 <= n <= LONGEST_AXIS for n in shape):
        raise InputError(f"shape must be three numbers from 1 to {LONGEST_AXIS}, got {' '.join(map(str, shape))}")
    if phantom == "clusters" and {p.name for p in SIGNALS[signal].parameters} != set(cluster_classes().parameters):
        raise InputError(f"phantom clusters has D and K, and {signal} has others; use uniform, or signal msdki")


def _check_protocol(signal: str, acquisition: Acquisition, shape: tuple[int, int, int]) -> None:
    has = acquisition.settings()
    for name in SIGNALS[signal].requires:
        if name not in has:
            raise InputError(f"signal {signal} needs {name} and the protocol has {', '.join(has)}; add --{name} FILE")
    if math.prod(shape) * len(acquisition) > MOST_NUMBERS:
        raise InputError(
            f"{' x '.join(map(str, shape))} voxels of {len(acquisition)} volumes are more than {MOST_NUMBERS} numbers; "
            "give a smaller --shape"
        )


def _bounds(
    model: type[SignalModel], phantom: str, acquisition: Acquisition, ranges: Mapping[str, Any] | None
) -> dict[str, tuple[float, float]]:
    """Ranges that the signal allows."""
    if not ranges:
        return {}
    if phantom != "uniform":
        raise InputError(f"ranges are of phantom uniform and this is {phantom}; leave out --range")
    for name, pair in ranges.items():
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(x, int | float) for x in pair):
            raise InputError(f"range of {name} is {pair!r}; give it as [lower, upper], such as [0.5, 2]")
    return {
        name: (float(a), float(b)) for name, (a, b) in BoundSignal(model, acquisition, ranges=ranges).ranges.items()
    }


def _tissue(
    signal: str, phantom: str, shape: tuple[int, int, int], seed: int, ranges: Mapping[str, tuple[float, float]]
) -> Tissue:
    if phantom == "brain":
        found = brain_phantom(SIGNALS[signal], shape, seed)
        inside = found.mask
        return Tissue(found.voxels(), inside.numpy(), found.labels[inside].long() - 1)
    whole, n = np.ones(shape, bool), math.prod(shape)
    if phantom == "clusters":
        theta, labels = clusters(n, seed)
        return Tissue(theta, whole, labels)
    return Tissue(uniform(SIGNALS[signal], n, seed, ranges), whole)


def _paths(files: Mapping[str, PathLike], inputs: Mapping[str, Any] | None) -> list[PathLike]:
    return [*files.values(), *(value for value in (inputs or {}).values() if isinstance(value, str | Path))]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str | Path) else value


def _with(
    tissue: Tissue, model: type[SignalModel], acquisition: Acquisition, inputs: dict[str, Tensor],
    fixed: Mapping[str, float] | None, tied: Mapping[str, str] | None,
) -> Tissue:  # fmt: skip
    """The tissue with inputs, and with parameters that are held."""
    if not fixed and not tied:
        return replace(tissue, inputs=inputs)
    # refuses what cannot be held
    held = BoundSignal(model, acquisition, fixed, tied, infer_s0=model.has_s0(acquisition))
    n = int(tissue.mask.sum())
    theta = tissue.theta | {name: torch.full((n,), value) for name, value in held.fixed.items()}
    return replace(tissue, theta=theta | {name: theta[other] for name, other in held.tied.items()}, inputs=inputs)


def _write_image(
    path: Path,
    model: type[SignalModel],
    acquisition: Acquisition,
    tissue: Tissue,
    sigma: float,
    noise: tuple[str, float],
    seed: int,
) -> None:
    """Measurements of the whole volume with noise of a kind and coils; outside the mask there is nothing else."""
    inside = torch.as_tensor(tissue.mask).flatten()
    theta, whole = ({k: everywhere(v, inside, k) for k, v in some.items()} for some in (tissue.theta, tissue.inputs))
    weights, grad_dev = (whole.pop(name, None) for name in OWN)
    kind, coils = noise
    y = simulate(
        model, acquisition, theta | {"S0": S0 * inside.float()}, sigma=None if kind == "none" else sigma, noise=kind,
        coils=coils, seed=seed, inputs=whole, weights=weights, grad_dev=grad_dev,
    )  # fmt: skip
    volume = y.float().numpy().reshape(*tissue.mask.shape, len(acquisition))
    write_volume(path, volume, AFFINE)


def _write_truth(folder: Path, model: type[SignalModel], tissue: Tissue) -> None:
    """The mask, a map of every parameter and derived quantity, and the tissue classes where there are any."""
    write_volume(folder / "sub-sim_mask.nii.gz", tissue.mask.astype(np.uint8), AFFINE)
    theta = _turned(tissue.theta, model.parameters)
    truth = theta | _turned(model.derived(theta), model.derived_parameters)
    for p in (*model.parameters, *model.derived_parameters):
        _write_map(folder, p, truth[p.name], tissue.mask, model.suffix)
    level = Parameter("S0", "S_0", "arbitrary", 0.0, 2 * S0, "signal without encoding")
    _write_map(folder, level, torch.full((int(tissue.mask.sum()),), S0), tissue.mask, model.suffix)
    write_inputs(folder, tissue.inputs, tissue.mask, AFFINE)
    if tissue.labels is None:
        return
    volume = scatter((tissue.labels + 1).numpy(), tissue.mask, np.uint8)
    write_volume(folder / "sub-sim_dseg.nii.gz", volume, AFFINE)
    rows = ["index\tname", *(f"{k + 1}\t{name}" for k, name in enumerate(CLASSES))]
    write_bytes(folder / "sub-sim_dseg.tsv", ("\n".join(rows) + "\n").encode())


def _turned(theta: Mapping[str, Tensor], table: Sequence[Parameter | Direction]) -> dict[str, Tensor]:
    """The same with axes on the side of positive z, where fits have theirs: their sign means nothing."""
    turned = dict(theta)
    for p in table:
        if isinstance(p, Direction):
            turned[p.name] = theta[p.name] * torch.where(theta[p.name][..., 2:] < 0, -1.0, 1.0)
    return turned


def _write_map(folder: Path, p: Parameter | Direction, values: Tensor, mask: np.ndarray, suffix: str) -> None:
    unit, factor = file_unit(p.unit)
    name = f"sub-sim_param-{p.name}_truth_{map_suffix(p.name, suffix)}"
    write_volume(folder / f"{name}.nii.gz", scatter(factor * values.numpy(), mask), AFFINE)
    sidecar: dict[str, Any] = {"Parameter": p.name, "Symbol": p.symbol, "Statistic": "truth"}
    if isinstance(p, Parameter):
        bounds = [factor * p.lower, factor * p.upper]
        sidecar |= {"Units": unit, "Description": f"{p.doc}: as simulated", "Bounds": bounds}
    else:
        doc = f"{p.doc}: as simulated, a unit vector without a sign; the volumes are its x, y and z components"
        sidecar |= {"Units": "1", "Description": doc, "Frame": "the axes of the gradient table (bvec)"}
    write_json(folder / f"{name}.json", sidecar)
