"""Memory and time of `pyroqmri apply` on a whole brain: 145 x 174 x 145 x 103 as .nii.gz, half of it masked.

The image is simulated and written volume by volume into a temporary folder; the fit is trained on a few of its
voxels; `apply` runs in a process of its own, whose peak resident memory the operating system reports.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

SHAPE = (145, 174, 145)
S0, SIGMA, N_TRAIN = 500.0, 10.0, 10_000
LIMIT_GB = 2.0
RESULTS = Path(__file__).parent / "results" / "apply_memory.json"


def protocol() -> tuple[np.ndarray, np.ndarray]:
    """13 b0, 30 at 1000 and 60 at 2000 s/mm2: b-values and directions of 103 volumes."""
    rng = np.random.default_rng(0)
    g = rng.normal(size=(103, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    b = np.repeat([0.0, 1000.0, 2000.0], [13, 30, 60])
    g[b == 0] = 0
    return b, g


def ellipsoid(shape: tuple[int, int, int]) -> np.ndarray:
    """The largest ellipsoid in the box: 52 % of its voxels."""
    axes = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return x**2 + y**2 + z**2 <= 1


def write_image(folder: Path, shape: tuple[int, int, int]) -> Path:
    """Ball-stick tissue with Rician noise as int16, one volume in memory at a time; gradients and mask beside it."""
    b, g = protocol()
    rng = np.random.default_rng(1)
    inside = ellipsoid(shape)
    n = int(inside.sum())
    f, d_par, d_iso = (rng.uniform(*ends, n).astype(np.float32) for ends in ((0.1, 0.7), (1.0, 2.2), (0.6, 1.4)))
    axis = rng.normal(size=(n, 3)).astype(np.float32)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((*shape, len(b)))
    header.set_sform(np.diag([1.25, 1.25, 1.25, 1]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = folder / "sub-01_dwi.nii.gz"
    with igzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for bval, direction in zip(b / 1000, g.astype(np.float32), strict=True):
            signal = S0 * (
                f * np.exp(-np.float32(bval) * d_par * (axis @ direction) ** 2)
                + (1 - f) * np.exp(-np.float32(bval) * d_iso)
            )
            volume = np.abs(rng.normal(scale=SIGMA, size=shape)).astype(np.float32)
            noise = rng.normal(scale=SIGMA, size=(2, n)).astype(np.float32)
            volume[inside] = np.hypot(signal + noise[0], noise[1])
            file.write(volume.round().astype(np.int16).tobytes(order="F"))
    np.savetxt(folder / "sub-01_dwi.bval", b[None], fmt="%g")
    np.savetxt(folder / "sub-01_dwi.bvec", g.T, fmt="%.6f")
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), np.diag([1.25, 1.25, 1.25, 1])), folder / "mask.nii.gz")
    return path


def train(folder: Path, signal: str) -> Path:
    """A fit of a small image of the same kind."""
    import pyroqmri as pq
    from pyroqmri.io import read_scan

    image = write_image(folder, (30, 30, 24))
    scan = read_scan(image, mask=folder / "mask.nii.gz")
    fit = pq.fit(scan.y[:N_TRAIN], scan.acquisition, signal=signal, recipe="hierarchical")
    fit.save(folder / "fit")
    return folder / "fit"


def measure(fit: Path, image: Path, folder: Path) -> dict[str, float]:
    """Run `apply` in a process of its own; seconds, and peak memory in GB (1e9 bytes)."""
    command = [
        sys.executable,
        "-m",
        "pyroqmri",
        "apply",
        str(fit),
        str(image),
        "--mask",
        str(image.parent / "mask.nii.gz"),
    ]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*command, "--out", str(folder / "out")], check=True)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    record = json.loads((folder / "out" / "fit" / "fit.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "peak_gb": after.ru_maxrss * unit / 1e9,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "read_seconds": record["seconds"]["read"],
        "posterior_seconds": record["seconds"]["posterior"],
        "voxels": record["n_mapped"],
        "voxels_per_cpu_second": record["n_mapped"] / cpu,
    }


def main() -> None:
    """Measure, print and keep the result; exit 1 when the limit on memory does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", default="msdki")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--folder", help="where the image is made; a temporary folder by default")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    shape = tuple(arguments.shape)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        (folder / "small").mkdir()
        fit = train(folder / "small", arguments.signal)
        image = write_image(folder, shape)
        size = image.stat().st_size / 1e6
        found = measure(fit, image, folder)
    made = {"python": platform.python_version(), "torch": version("torch"), "machine": platform.machine(), "threads": 1}
    setting = {
        "shape": [*shape, len(protocol()[0])],
        "file_mb": size,
        "signal": arguments.signal,
        "recipe": "hierarchical",
    }
    result = {"made": made, **setting, **found, "limit_gb": LIMIT_GB, "holds": found["peak_gb"] < LIMIT_GB}
    print(json.dumps(result, indent=1))
    if shape == SHAPE:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(not result["holds"])


if __name__ == "__main__":
    main()
