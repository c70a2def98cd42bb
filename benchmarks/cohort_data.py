"""A BIDS data set of 20 simulated subjects, five of them broken, and real scans where there are some.

The signal is written out in numpy. Odd subjects are of site a, even ones of site b, whose D is 0.10 um2/ms higher;
those from 11 on are patients, whose K is 0.10 higher. Subject 02 came twice, and its D rose by 0.05.
"""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, SIGMA = (12, 12, 4), 15.0
B = np.repeat([0.0, 1000.0, 2000.0], [4, 10, 10])
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SITE, PATIENTS, CHANGE = 0.10, 0.10, 0.05
BETWEEN, WITHIN = (0.04, 0.04), (0.10, 0.10)
BROKEN = {
    "16": "no b-values", "17": "a truncated image", "18": "an empty mask", "19": "b-values of other length",
    "20": "no finite value",
}  # fmt: skip


def directions(seed: int = 0) -> np.ndarray:
    """Unit vectors ``(M, 3)``, zero where b is."""
    g = np.random.default_rng(seed).normal(size=(len(B), 3))
    return g * (B > 0)[:, None] / np.linalg.norm(g, axis=1, keepdims=True)


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """Write an image, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def subject(root: Path, label: str, session: str = "", shift: float = 0.0) -> tuple[float, float]:
    """One image with its files, in units of its own; the true means of D and K over its voxels."""
    number = int(label)
    own, rng = np.random.default_rng(number), np.random.default_rng([number, int(session or 0)])
    means = np.array([0.9, 0.8]) + BETWEEN * own.normal(size=2)
    means += [SITE * (number % 2 == 0) + shift, PATIENTS * (number > 10)]
    D, K = (rng.normal(mean, sd, SHAPE) for mean, sd in zip(means, WITHIN, strict=True))
    x, D4, K4 = B / 1000, D[..., None], K[..., None]
    clean = 400 * (1 + own.random()) * np.exp(-x * D4 + x**2 * D4**2 * K4 / 6)
    real, imaginary = rng.normal(scale=SIGMA, size=(2, *clean.shape))
    stem = f"sub-{label}" + (f"_ses-{session}" if session else "")
    folder = root / f"sub-{label}" / (f"ses-{session}/dwi" if session else "dwi")
    save(folder / f"{stem}_dwi.nii.gz", np.hypot(clean + real, imaginary).astype(np.float32))
    save(folder / f"{stem}_desc-brain_mask.nii.gz", np.ones(SHAPE, np.uint8))
    np.savetxt(folder / f"{stem}_dwi.bval", B[None], fmt="%g")
    np.savetxt(folder / f"{stem}_dwi.bvec", directions().T, fmt="%.6f")
    return float(D.mean()), float(K.mean())


def break_it(root: Path, label: str) -> None:
    """Break a subject in its way of :data:`BROKEN`."""
    stem = root / f"sub-{label}" / "dwi" / f"sub-{label}"
    image, bval = Path(f"{stem}_dwi.nii.gz"), Path(f"{stem}_dwi.bval")
    way = BROKEN[label]
    if way == "no b-values":
        bval.unlink()
    elif way == "a truncated image":
        image.write_bytes(image.read_bytes()[:-3000])
    elif way == "an empty mask":
        save(Path(f"{stem}_desc-brain_mask.nii.gz"), np.zeros(SHAPE, np.uint8))
    elif way == "b-values of other length":
        bval.write_text("0 0 1000\n")
    else:
        save(image, np.full((*SHAPE, len(B)), np.nan, np.float32))


def simulated(root: Path, n: int = 20, broken: bool = True) -> dict[str, tuple[float, float]]:
    """``n`` subjects; the true means of D and K of each image by its label."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "simulated", "BIDSVersion": "1.10.0"}\n')
    labels = [f"{i:02d}" for i in range(1, n + 1)]
    truth = {}
    for label in labels:
        if label == "02":
            truth["sub-02_ses-1"] = subject(root, label, "1")
            truth["sub-02_ses-2"] = subject(root, label, "2", CHANGE)
        else:
            truth[f"sub-{label}"] = subject(root, label)
        if broken and label in BROKEN:
            break_it(root, label)
    rows = [f"sub-{one}\t{'ba'[int(one) % 2]}\t{'patient' if int(one) > 10 else 'control'}" for one in labels]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tsite\tgroup", *rows]) + "\n")
    labels_of = np.where(np.arange(SHAPE[0])[:, None, None] * np.ones(SHAPE) < SHAPE[0] / 2, 1, 2)
    save(root / "code" / "atlas_dseg.nii.gz", labels_of.astype(np.int16))
    (root / "code" / "atlas_dseg.tsv").write_text("index\tname\n1\tleft half\n2\tright half\n")
    return truth


def real(root: Path, scans: Path) -> list[str]:
    """Real scans in the names of BIDS, below a data set; which ones. Each echo and inversion is a file of its own."""
    found = []
    for label, folder, name in (
        ("mdt1", "mdt_b1k_b2k", "dwi"), ("mdt2", "mdt_multishell_b6k", "dwi"),
        ("cord", "ivim_spinalcord_7T", "dwi_rl"), ("cordap", "ivim_spinalcord_7T", "dwi_ap_native"),
    ):  # fmt: skip
        source, place = scans / folder, root / f"sub-{label}" / "dwi"
        place.mkdir(parents=True)
        for ending in (".nii.gz", ".bval", ".bvec"):
            if (source / f"{name}{ending}").exists():
                shutil.copyfile(source / f"{name}{ending}", place / f"sub-{label}_dwi{ending}")
        mask = source / f"{name.replace('dwi', 'mask', 1)}.nii.gz"
        if mask.exists():
            shutil.copyfile(mask, place / f"sub-{label}_desc-brain_mask.nii.gz")
        found.append(label)
    for label, folder, times, entity, setting, suffix in (
        ("prostate", "t2_mese_prostate_bolan", "TE_ms.txt", "echo", "EchoTime", "MESE"),
        ("t2", "t2_se_brain_santini", "TE_ms.txt", "echo", "EchoTime", "MESE"),
        ("t1", "t1_ir_brain_santini", "TI_ms.txt", "inv", "InversionTime", "IRT1"),
    ):  # fmt: skip
        _series(root / f"sub-{label}" / "anat" / f"sub-{label}", scans / folder, times, entity, setting, suffix)
        found.append(label)
    return found


def _series(stem: Path, source: Path, times: str, entity: str, setting: str, suffix: str) -> None:
    image = nib.load(source / "data.nii.gz")
    values = np.asarray(image.dataobj, dtype=np.float32)
    for i, ms in enumerate(np.loadtxt(source / times).ravel()):
        name = f"{stem.name}_{entity}-{i + 1}_{suffix}"
        save(stem.with_name(f"{name}.nii.gz"), values[..., i], image.affine)
        stem.with_name(f"{name}.json").write_text(json.dumps({setting: ms / 1000}))
    if (source / "mask_derived.nii.gz").exists():
        shutil.copyfile(source / "mask_derived.nii.gz", stem.with_name(f"{stem.name}_desc-brain_mask.nii.gz"))
