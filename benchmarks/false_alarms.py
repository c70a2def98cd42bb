"""Warnings on clean scans: every one of them is a false alarm.

    python -m benchmarks.false_alarms
    python -m benchmarks.false_alarms --n 5 --signals ivim t2_decay --hierarchical 1

A brain of typical tissue is simulated for every signal, on its default protocol and two other common ones, at signal
to noise ratios from 20 to 50 of the brightest measurement, rounded to whole numbers as scanners do, written with the
names of BIDS, without a mask, and fitted by the function behind ``pyroqmri fit``. ``--n`` scans of each protocol are
fitted with ``least_squares``, ``--hierarchical`` of each signal with ``hierarchical``. Signals that need a known
population, such as `t1_vfa_free_b1`, go with ``hierarchical`` alone, for ``least_squares`` is rightly warned of. With
``--one-tissue`` the scan is of white matter alone, with its mask: a brain's tissues are not one population, of which
``hierarchical`` rightly warns. The table has the number with any warning, and each warning once with how often it
came; it is kept in ``benchmarks/results/false_alarms.json``.
"""

import argparse
import json
import platform
import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from pyroqmri import Acquisition, InputError
from pyroqmri.commands import ScanFiles, fit_image
from pyroqmri.commands.protocol_files import write_protocol
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.signals.kurtosis import QUARTIC
from pyroqmri.signals.shells import shells
from pyroqmri.signals.tensor import ELEMENTS, elements_of
from pyroqmri.simulate import brain_phantom
from pyroqmri.simulate.phantom import Phantom

RESULTS = Path(__file__).parent / "results" / "false_alarms.json"
Shape = tuple[int, int, int]
SHAPE: Shape = (20, 20, 5)
S0 = 1000.0
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])
SUFFIX = {
    "t1_inversion": "IRT1", "t1_inversion_signed": "IRT1", "t1_vfa": "VFA", "t1_looklocker": "IRT1",
    "t1_inversion_ab": "IRT1", "t1_inversion_ab_signed": "IRT1", "t2_decay": "MESE", "t2_floor": "MESE",
    "t2_epg": "MESE", "t2_biexp": "MESE", "t2star_decay": "MEGRE", "mpm": "MPM", "mp2rage": "MP2RAGE",
    "cest_lorentz": "cest", "wassr": "cest", "t1_vfa_free_b1": "VFA", "t2_epg_given_b1": "MESE", "mwf": "MESE",
    "mp2rage_free_b1": "MP2RAGE",
}  # fmt: skip  # of the others dwi


def _perfusion(*b: float, n: int = 1) -> Acquisition:
    return Acquisition(bval=np.repeat(b, n) / 1000)


def _inversion(*ti: float, tr: float) -> Acquisition:
    return Acquisition(ti=list(ti), tr=[tr] * len(ti))


def _flips(*degrees: float, tr: float) -> Acquisition:
    return Acquisition(flip=np.radians(degrees), tr=[tr] * len(degrees))


def _echoes(n: int, spacing: float) -> Acquisition:
    return Acquisition(te=spacing * np.arange(1, n + 1))


def _offsets(n_far: int, reach: float, step: float) -> Acquisition:
    return Acquisition(offset=np.r_[[300.0] * n_far, np.arange(-reach, reach + step / 2, step)])


def _encoded_echoes(b: Sequence[float], te: Sequence[float]) -> Acquisition:
    return Acquisition(bval=np.tile(b, len(te)), te=np.repeat(te, len(b)))


INVERSIONS = (
    _inversion(50, 100, 200, 400, 800, 1600, 3200, tr=10_000), _inversion(100, 500, 1000, 1500, 2500, 4000, tr=8000),
)  # fmt: skip
OTHERS: dict[str, tuple[Acquisition, Acquisition]] = {
    "msdki": (shells(5, 30, 1.0, 2.0), shells(10, 30, 0.7, 1.4, 2.1)),
    "ball_stick": (shells(5, 32, 1.0, 2.0), shells(8, 64, 1.0, 3.0)),
    "dti": (shells(1, 12, 0.8), shells(6, 64, 1.0)),
    "dki": (shells(5, 32, 1.0, 2.0), shells(8, 64, 0.7, 1.4, 2.1)),
    "fwdti": (shells(4, 30, 0.4, 1.2), shells(6, 64, 0.7, 1.5)),
    "noddi": (shells(5, 32, 0.7, 2.0), shells(9, 60, 1.0, 2.5)),
    "adc": (_perfusion(0, 800, n=2), _perfusion(0, 50, 400, 800, n=3)),
    "ivim": (
        _perfusion(0, 10, 20, 40, 60, 80, 100, 200, 400, 600, 800, n=3),
        _perfusion(0, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 800, n=4),
    ),
    "t2_adc": (_encoded_echoes((0, 0.5, 1), (50, 80, 120)), _encoded_echoes((0, 0.3, 0.7, 1), (60, 90, 130, 180))),
    "t1_inversion": INVERSIONS,
    "t1_inversion_signed": INVERSIONS,
    "t1_inversion_ab": INVERSIONS,
    "t1_inversion_ab_signed": INVERSIONS,
    "t1_looklocker": (
        Acquisition(ti=[100.0, 180, 1000, 1080, 1900, 1980, 2800, 3700]),
        Acquisition(ti=[115.0, 195, 275, 1215, 1295, 1375, 2315, 2395, 3415, 3495, 4515]),
    ),
    "t1_vfa": (_flips(3, 5, 8, 12, 18, 25, tr=8), _flips(2, 5, 10, 15, 20, 30, tr=20)),
    "t2_decay": (_echoes(8, 12), _echoes(16, 15)),
    "t2star_decay": (_echoes(6, 8), _echoes(12, 4)),
    "t2_floor": (_echoes(12, 12), _echoes(20, 15)),
    "t2_biexp": (_echoes(48, 7), _echoes(32, 8)),
    "cest_lorentz": (_offsets(2, 6, 0.25), _offsets(3, 10, 0.25)),
}


def tensors(phantom: Phantom, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Elements of one tensor a voxel: white matter, grey matter and fluid along the axes of a phantom of sticks."""
    n = phantom.voxels()["n"]
    tissue = phantom.labels[phantom.mask].long() - 1
    along, across = torch.tensor([[1.6, 0.4], [0.95, 0.8], [3.0, 3.0]])[tissue].T
    both = torch.from_numpy(1 + 0.05 * rng.standard_normal(len(n))).float()
    outer = n.unsqueeze(-1) * n.unsqueeze(-2)
    tensor = (both * across)[:, None, None] * torch.eye(3) + (both * (along - across))[:, None, None] * outer
    return dict(zip(ELEMENTS, elements_of(tensor), strict=True))


def with_free_water(phantom: Phantom, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """The tensors of tissue of every kind beside some free water, of which fluid has the most."""
    tissue = phantom.labels[phantom.mask].long() - 1
    fraction = (
        torch.tensor([0.08, 0.12, 0.9])[tissue] + torch.from_numpy(0.02 * rng.standard_normal(len(tissue))).float()
    )
    found = tensors(replace(phantom, labels=phantom.labels.clamp_max(2)), rng)
    return found | {"FWF": fraction}


def with_kurtosis(phantom: Phantom, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """The tensors with the kurtosis of a stick and a ball: three times the variance of D(n) over the square of MD."""
    theta = phantom.voxels()
    n, f = theta["n"].double(), theta["f"].double()[:, None, None]
    outer, eye = n.unsqueeze(-1) * n.unsqueeze(-2), torch.eye(3).double()
    stick, ball = theta["D_par"].double()[:, None, None] * outer, theta["D_iso"].double()[:, None, None] * eye
    mean, apart = f * stick + (1 - f) * ball, stick - ball
    scale = 3 * (f * (1 - f)).flatten() / (mean.diagonal(dim1=1, dim2=2).mean(-1)).square()
    found = dict(zip(ELEMENTS, elements_of(mean), strict=True))
    for name in QUARTIC:
        i, j, k, m = ("xyz".index(axis) for axis in name)
        pairs = ((i, j, k, m), (i, k, j, m), (i, m, j, k))
        found[f"W{name}"] = scale * sum(apart[:, a, b] * apart[:, c, d] for a, b, c, d in pairs) / 3
    return {name: value.float() for name, value in found.items()}


_OF_TENSORS = {"dti": tensors, "fwdti": with_free_water, "dki": with_kurtosis}


def write_scan(
    folder: Path, name: str, acquisition: Acquisition, snr: float, seed: int, shape: Shape = SHAPE, alone: bool = False
) -> ScanFiles:
    """A clean scan in files named as BIDS has it, with maps of inputs such as B1; white matter ``alone`` or a brain."""
    signal = SIGNALS[name]
    phantom = brain_phantom(SIGNALS["ball_stick"] if name in _OF_TENSORS else signal, shape, seed)
    rng = np.random.default_rng([seed, 1])
    head = phantom.mask.numpy()
    theta = _OF_TENSORS[name](phantom, rng) if name in _OF_TENSORS else phantom.voxels()
    b1 = 1 + 0.15 * np.sin(np.linspace(0, 3, shape[0]))[:, None, None] * np.ones(shape)
    inputs = {key: torch.from_numpy(b1[head]).float() for key in signal.inputs}
    clean = np.zeros((*shape, len(acquisition)))
    clean[head] = S0 * BoundSignal(signal, acquisition)(theta, inputs).numpy()
    if alone:
        head = head & (phantom.labels == 1).numpy()
        clean[~head] = 0
    sigma = np.abs(clean[head]).max(-1).mean() / snr
    noise = rng.normal(scale=sigma, size=(2, *clean.shape))
    values = clean + noise[0] if signal.signed else np.hypot(clean + noise[0], noise[1])
    folder.mkdir(parents=True)
    image = folder / f"sub-01_{SUFFIX.get(name, 'dwi')}.nii.gz"
    scale = 1.0 if sigma > 5 else 5 / sigma  # whole numbers are fine enough
    nib.save(nib.Nifti1Image(np.round(scale * values).astype(np.int16), AFFINE), image)
    write_protocol(image, acquisition, {})
    maps = {key: folder / f"sub-01_{key}map.nii.gz" for key in signal.inputs}
    for path in maps.values():
        nib.save(nib.Nifti1Image(b1.astype(np.float32), AFFINE), path)
    if not alone:
        return ScanFiles(image, inputs=maps)
    mask = folder / "mask.nii.gz"  # none can be made of what is hollow
    nib.save(nib.Nifti1Image(head.astype(np.uint8), AFFINE), mask)
    return ScanFiles(image, mask=mask, inputs=maps)


def warnings_of(
    name: str, recipe: str, protocol: int, seed: int, shape: Shape = SHAPE, alone: bool = False
) -> list[str]:
    """What a fit of one clean scan warns of; a refusal is a warning too."""
    acquisition = (SIGNALS[name].default_protocol, *OTHERS.get(name, ()))[protocol]
    assert acquisition is not None
    snr = float(np.random.default_rng([seed, 2]).uniform(20, 50))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = write_scan(folder / "in", name, acquisition, snr, seed, shape, alone)
        likelihood = "gaussian" if SIGNALS[name].signed and recipe != "least_squares" else None
        try:
            out = fit_image(files, signal=name, recipe=recipe, out=folder / "out", likelihood=likelihood, seed=seed)
        except InputError as error:
            return [f"refused: {error}"]
        return json.loads((out / "fit" / "fit.json").read_text())["warnings"]


def run(
    name: str, recipe: str, protocols: Sequence[int], n: int, first_seed: int, shape: Shape = SHAPE, alone: bool = False
) -> dict[str, Any]:
    """Clean scans of one signal and recipe, ``n`` of each protocol: how many had a warning, and which."""
    begin = time.perf_counter()
    found = {
        (p, i): warnings_of(name, recipe, p, first_seed + 100 * p + i, shape, alone)
        for p in protocols
        for i in range(n)
    }
    said = Counter(_without_numbers(sentence) for sentences in found.values() for sentence in sentences)
    return {
        "signal": name, "recipe": recipe + alone * ", one tissue", "shape": list(shape), "scans": len(found),
        "with a warning": sum(bool(w) for w in found.values()),
        "by protocol": [sum(bool(found[p, i]) for i in range(n)) for p in protocols],
        "warnings": dict(said.most_common()), "seconds": round(time.perf_counter() - begin, 1),
    }  # fmt: skip


def _without_numbers(sentence: str) -> str:
    """The sentence with its numbers as one sign, so that the same warning is counted once."""
    return re.sub(r"\d+(?:[.,]\d+)*", "#", sentence.replace(tempfile.gettempdir(), ""))


def keep(row: dict[str, Any]) -> None:
    """Put a row in the place of that of the same signal and recipe."""
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = {(r["signal"], r["recipe"]): r for r in [*kept, row]}
    made = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    RESULTS.write_text(json.dumps({"made": made, "rows": list(rows.values())}, indent=0) + "\n")


def main() -> None:
    """Simulate, fit, print and keep; exit 1 where more than one scan in 50 has a warning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2, help="scans of each protocol with least_squares")
    parser.add_argument("--hierarchical", type=int, default=0, help="scans of each signal with hierarchical")
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS), choices=list(SIGNALS))
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="voxels of the image")
    parser.add_argument("--one-tissue", action="store_true", help="white matter alone: a population of one shape")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.signals:
        every = list(range(1 + len(OTHERS.get(name, ()))))
        for recipe, protocols, n in (("least_squares", every, args.n), ("hierarchical", [0], args.hierarchical)):
            if n == 0 or (recipe == "least_squares" and SIGNALS[name].nuisance):  # which is warned of, and rightly
                continue
            row = run(name, recipe, protocols, n, args.seed, tuple(args.shape), args.one_tissue)
            keep(row)
            rows.append(row)
            head = f"{name:20s} {recipe:14s} {row['with a warning']:3d} of {row['scans']:3d}"
            print(f"{head}  {row['seconds']:6.1f} s", flush=True)
            for sentence, times in row["warnings"].items():
                print(f"    {times} x {sentence}", flush=True)
    alarmed, scans = (sum(r[k] for r in rows) for k in ("with a warning", "scans"))
    print(f"{alarmed} of {scans} clean scans have a warning")
    raise SystemExit(int(alarmed > scans / 50))


if __name__ == "__main__":
    main()
