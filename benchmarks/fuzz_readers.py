"""Readers, sound inputs for each, and what nothing that was read may be; for `benchmarks.fuzz`."""

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import nibabel as nib
import numpy as np
import torch
from markupsafe import Markup

import pyroqmri as pq
from pyroqmri import Acquisition
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.errors import InputError
from pyroqmri.fitting.schema import load_recipe, recipe_folder
from pyroqmri.io import read_gradients, read_settings
from pyroqmri.io.fit_folder import sealed_record
from pyroqmri.io.text import read_vector
from pyroqmri.maps import write_maps
from pyroqmri.recipe import Recipe
from pyroqmri.report import page as pages
from pyroqmri.report import sections
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.sections import Picture

SHAPE, N = (4, 4, 3), 9
B = np.repeat([0.0, 1000.0, 2000.0], [1, 6, 2])
AXES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0], [0, 0.6, 0.8], [0.8, 0, 0.6], [1, 0, 0],
                 [0, 1, 0]])  # fmt: skip
LONGEST = {"te": 1e5, "ti": 1e5, "tr": 1e6, "flip": 2 * np.pi + 1e-3}  # ms and rad that a scanner could do
HIGHEST_B = 200.0  # ms/um2
SEALED = "sealed"  # beside a fit whose checksums are made to agree with what was changed
WHOLE = "whole"  # beside inputs that are used as a command uses them, not only read: those take seconds
_PLAIN = re.compile(rb"[0-9.eE+\- \n]+")


class Reader(NamedTuple):
    """``write`` puts sound files into a folder, ``broken`` names those that are changed, and ``read`` reads them.

    ``read`` gets the folder and the name of the changed file; it raises InputError for what it refuses, and returns a
    sentence where it accepted what cannot be, else "".
    """

    write: Callable[[Path], None]
    broken: tuple[str, ...]
    read: Callable[[Path, str], str]


def _table(path: Path, rows: np.ndarray, layout: int) -> None:
    """A row, a column, or a row wrapped over lines."""
    rows = np.atleast_2d(rows)
    if layout == 1:
        rows = rows.T
    lines = [" ".join(f"{x:g}" for x in row) for row in rows]
    path.write_text("\n".join(lines if layout < 2 else (line.replace(" ", "\n", 4) for line in lines)) + "\n")


def _image(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> None:
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, 2, 2, 1]) if affine is None else affine), path)


def _measurements(seed: int = 0) -> np.ndarray:
    """A small diffusion scan ``(X, Y, Z, M)``, tissue everywhere."""
    rng = np.random.default_rng(seed)
    clean = 1000 * np.exp(-B / 1000 * (0.8 + 0.2 * rng.random((*SHAPE, 1))))
    return np.hypot(clean + rng.normal(0, 20, clean.shape), rng.normal(0, 20, clean.shape)).astype(np.float32)


def _write_texts(folder: Path) -> None:
    for layout, name in enumerate(("row", "column", "wrapped")):
        _table(folder / f"{name}.txt", np.arange(1.0, N + 1) * 10, layout)


def _read_texts(folder: Path, name: str) -> str:
    content, values = (folder / name).read_bytes(), read_vector(folder / name, "te", N)
    if not np.isfinite(values).all():
        return "numbers that are not finite"
    if _PLAIN.fullmatch(content) and values.tolist() != [float(word) for word in content.split()]:
        return "other numbers than the file has"
    return ""


def _write_gradients(folder: Path) -> None:
    _table(folder / "a.bval", B, 0)
    _table(folder / "a.bvec", AXES.T, 0)
    _table(folder / "c.bval", B, 1)
    _table(folder / "c.bvec", AXES, 0)
    _table(folder / "m.b", np.c_[AXES, B], 0)


def _read_gradients(folder: Path, name: str) -> str:
    bval = folder / (name if name.endswith(".b") else f"{name[0]}.bval")
    bvec = None if name.endswith(".b") else folder / f"{name[0]}.bvec"
    acquisition = read_gradients(bval, bvec, n_volumes=N, affine=np.diag([-2.0, 2, 2, 1])).acquisition
    assert acquisition.bval is not None
    assert acquisition.bvec is not None
    norm = acquisition.bvec.norm(dim=1)
    if len(acquisition) != N or not bool(((acquisition.bval >= 0) & (acquisition.bval < HIGHEST_B)).all()):
        return f"b of {acquisition.bval.tolist()} ms/um2"
    if not bool((((norm - 1).abs() < 1e-3) | (norm == 0)).all()):
        return f"directions of the lengths {norm.tolist()}"
    return ""


def _write_sidecars(folder: Path) -> None:
    entries = {"InversionTime": (0.05 * np.arange(1, N + 1)).tolist(), "RepetitionTimePreparation": 6.0,
               "EchoTime": 0.01, "FlipAngle": 90, "MagneticFieldStrength": 3, "ImageType": ["M"]}  # fmt: skip
    (folder / "sub-01_IRT1.json").write_text(json.dumps(entries))
    entries = {"EchoTime": (0.01 * np.arange(1, N + 1)).tolist(), "RepetitionTime": 2.5, "EchoTrainLength": N}
    (folder / "sub-01_MESE.json").write_text(json.dumps(entries))
    entries = {"FlipAngle": list(range(2, 2 + N)), "RepetitionTimeExcitation": 0.015, "EchoTime": 0.003}
    (folder / "sub-01_VFA.json").write_text(json.dumps(entries))


def _read_sidecars(folder: Path, name: str) -> str:
    names = {"sub-01_IRT1.json": ("ti", "tr"), "sub-01_MESE.json": ("te",), "sub-01_VFA.json": ("flip", "tr")}[name]
    image = folder / name.replace(".json", ".nii.gz")
    found = read_settings(image, n_volumes=N, names=names, others=True)
    Acquisition(**{key: torch.from_numpy(values) for key, values in found.values.items()})
    for key, values in found.values.items():
        if len(values) != N or not (np.isfinite(values).all() and values.min() >= 0):
            return f"{key} of {values.tolist()}"
        if values.max() > LONGEST[key]:
            return f"{key} up to {values.max():g}"
    return ""


def _write_recipes(folder: Path) -> None:
    for path in sorted(recipe_folder().glob("*.toml")):
        shutil.copy(path, folder / path.name)


def _read_recipes(folder: Path, name: str) -> str:
    found = load_recipe(folder / name)
    same = Recipe.of(tomllib.loads(found.to_toml()), name) == found
    return "" if same else "a recipe that is another when it is written and read again"


def _write_images(folder: Path) -> None:
    _image(folder / "x.nii", _measurements())
    _image(folder / "y.nii.gz", np.round(_measurements(1)).astype(np.int16))
    _image(folder / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    for name in "xy":
        _table(folder / f"{name}.bval", B, 0)


def _read_images(folder: Path, name: str) -> str:
    path = folder / ("x.nii" if name.startswith("mask") else name)
    scan = ScanFiles(path, bval=folder / f"{path.name[0]}.bval", mask=folder / "mask.nii.gz").read("msdki")
    if scan.y.shape != (scan.mask.sum(), N) or not scan.mask.any():
        return f"measurements of the shape {scan.y.shape}"
    if not (np.isfinite(scan.ref.affine).all() and abs(np.linalg.det(scan.ref.affine[:3, :3])) > 0):
        return "an affine that maps nothing"
    other = _by_nibabel(path)
    kept = ~np.isnan(scan.y).all(1)  # voxels at the ceiling are taken out
    if other is not None and not np.array_equal(other[scan.mask][kept], scan.y[kept], equal_nan=True):
        return "other measurements than nibabel reads"
    return ""


def _by_nibabel(path: Path) -> np.ndarray | None:
    """What nibabel reads, float32 ``(X, Y, Z, M)``; None where it cannot."""
    try:
        with np.errstate(all="ignore"):
            image: Any = nib.load(path)  # pyright: ignore[reportPrivateImportUsage]
            if image.dataobj.offset < 348:  # it would take the header for measurements
                return None
            found = np.asarray(image.get_fdata(), np.float32)
        return found.reshape(*found.shape[:3], -1)
    except Exception:  # it raises eight kinds of exception on damaged files
        return None


def _few() -> torch.Tensor:
    """Measurements of five voxels ``(5, M)``."""
    return torch.from_numpy(_measurements().reshape(-1, N)[:5])


def _write_fit(folder: Path) -> None:
    y, acq = torch.from_numpy(_measurements().reshape(-1, N)), Acquisition(bval=B / 1000)
    settings = {"training.steps": 4, "training.check_every": 2, "guide.width": 8}
    fit = pq.fit(y, acq, signal="msdki", recipe="hierarchical", sigma=20.0, settings=settings)
    fit.save(folder / "fit")
    for path in (folder / "fit").iterdir():
        path.rename(folder / path.name)
    (folder / "fit").rmdir()
    np.save(folder / "truth.npy", fit.posterior(_few()).mean["D"].numpy())


def _read_fit(folder: Path, name: str) -> str:
    """With checksums as they are half of the time, and with such as agree: a fit that is read as it is, or refused."""
    sealed = (folder / SEALED).exists()
    if sealed:
        _reseal(folder)
    fit = pq.load_fit(folder)
    if not 0 < float(fit.sigma) < float("inf"):
        return f"a noise level of {fit.sigma}"
    try:
        found = fit.posterior(_few()).mean["D"].numpy()
    except InputError:
        return "" if sealed else "a fit that was changed and cannot be used"
    if not sealed and not np.array_equal(found, np.load(folder / "truth.npy")):
        return "other numbers than were saved"
    return ""


def _reseal(folder: Path) -> None:
    """Make checksums agree with what was changed, where the record can be read."""
    from hashlib import sha256

    try:
        record = json.loads((folder / "fit.json").read_text())
        record.pop("record_sha256", None)
        for name in ("recipe.toml", "weights.safetensors"):
            record[f"{name.partition('.')[0]}_sha256"] = sha256((folder / name).read_bytes()).hexdigest()
        (folder / "fit.json").write_bytes(sealed_record(record))
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass


def _write_own(folder: Path) -> None:
    rng = np.random.default_rng(2)
    _image(folder / "dwi.nii.gz", _measurements())
    _table(folder / "dwi.bval", B, 0)
    _table(folder / "dwi.bvec", AXES.T, 0)
    _image(folder / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    _image(folder / "weights.nii", (rng.random((*SHAPE, N)) > 0.1).astype(np.float32))
    _image(folder / "grad_dev.nii", rng.normal(0, 0.02, (*SHAPE, 9)).astype(np.float32))


def _read_own(folder: Path, name: str) -> str:
    own: dict[str, Any] = {name.removesuffix(".nii"): folder / name}
    scan = ScanFiles(folder / "dwi.nii.gz", mask=folder / "mask.nii.gz", **own).read("dti")
    weights = scan.inputs.pop("weights", None)
    if weights is not None and not bool(((weights >= 0) & (weights <= 1)).all()):
        return "weights beyond 0 and 1"
    found = scan.inputs["grad_dev"].transpose(0, 2, 1).reshape(-1, 9) if weights is None else weights
    other = _by_nibabel(folder / name)
    if other is not None:
        other = np.where(np.isfinite(other), other, np.nan)[scan.mask]  # what is infinite is read as missing
    if other is not None and not np.allclose(other, found, atol=2e-3, equal_nan=True):
        return "other numbers than nibabel reads"
    if not (folder / WHOLE).exists():
        return ""
    fit = pq.fit(
        scan.y, scan.acquisition, signal="dti", recipe="least_squares", sigma=20.0, s0="inferred",
        inputs=scan.inputs, weights=weights,
    )  # fmt: skip
    found = fit.posterior(scan.y, inputs=scan.inputs, weights=weights)
    fine, md = found.status == 1, found.mean["MD"]
    return "" if bool(torch.isfinite(md[fine]).all()) else "a fine voxel without a number"


class _Live(HTMLParser):
    """What a browser would act on."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.handlers, self.links = list[str](), list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(f"script {found.get('type')}" if tag == "script" else tag)
        self.handlers += [name for name in found if name.startswith("on")]
        self.links += [str(found[name])[:9] for name in ("href", "src", "action", "data") if found.get(name)]


def _write_report(folder: Path) -> None:
    """The folder of a small fit: two maps, their statistics, a status map and a record."""
    y, acq = torch.from_numpy(_measurements().reshape(-1, N)), Acquisition(bval=B / 1000)
    fit = pq.fit(y, acq, signal="msdki", recipe="least_squares", sigma=20.0)
    mask = np.ones(SHAPE, bool)
    reference: Any = SimpleNamespace(prefix="sub-01", shape=SHAPE, affine=np.diag([-2.0, 2, 2, 1]))
    write_maps(
        fit.posterior(y), reference, mask, folder, signal_name="msdki", suffix="dwimap", recipe="least_squares",
        likelihood="rician", sources=["sub-01_dwi.nii.gz"],
    )  # fmt: skip
    fit.save(folder / "fit")


def _undrawn(atlas: Atlas) -> dict[str, Any]:
    """What a page has of its maps, but for the figures."""
    results, empty = atlas.results, Picture(b"", Markup(), "")
    for name, stat in results.entries:
        atlas.images(name, stat)
    parts = dict.fromkeys(("several", "has_sd", "variation", "by_class", "classes", "khat", "training"))
    parts |= dict.fromkeys(("maps", "more_maps", "more_names", "certainty", "directions", "angles", "predictive",
                            "neighbours"), ())  # fmt: skip
    return parts | {"status_map": empty, "summaries": [sections.summary(atlas, name) for name in results.names]}


def _read_report(folder: Path, name: str) -> str:
    """All that a page reads and prints; its figures, which take seconds, in some of the inputs."""
    drawn = (
        nullcontext()
        if (folder / WHOLE).exists()
        else patch.multiple(pages, _pictures=_undrawn, _equation=lambda signal: None)
    )
    with drawn:
        page = _Live(pages.write_report(folder, viewer=False).read_text())
    scripts = [tag for tag in page.tags if tag.startswith("script")]
    if page.handlers or scripts or not all(link.startswith(("data:", "https://", "#")) for link in page.links):
        return f"a page with {page.handlers} {scripts} {sorted(set(page.links))}"
    return ""


_MAPS = [f"sub-01_model-msdki_param-{p}_stat-{s}_dwimap" for p in "DK" for s in ("mean", "sd")]
_SHOWN = ("fit/fit.json", "fit/recipe.toml", "sub-01_model-msdki_desc-status_mask.nii.gz",
          *(f"{name}.{end}" for name in _MAPS for end in ("nii.gz", "json")))  # fmt: skip
READERS = {
    "texts": Reader(_write_texts, ("row.txt", "column.txt", "wrapped.txt"), _read_texts),
    "gradients": Reader(_write_gradients, ("a.bval", "a.bvec", "c.bval", "c.bvec", "m.b"), _read_gradients),
    "sidecars": Reader(_write_sidecars, ("sub-01_IRT1.json", "sub-01_MESE.json", "sub-01_VFA.json"), _read_sidecars),
    "recipes": Reader(_write_recipes, tuple(p.name for p in sorted(recipe_folder().glob("*.toml"))), _read_recipes),
    "images": Reader(_write_images, ("x.nii", "y.nii.gz", "mask.nii.gz"), _read_images),
    "weights": Reader(_write_own, ("weights.nii",), _read_own),
    "grad_dev": Reader(_write_own, ("grad_dev.nii",), _read_own),
    "fits": Reader(_write_fit, ("fit.json", "recipe.toml", "weights.safetensors"), _read_fit),
    "reports": Reader(_write_report, _SHOWN, _read_report),
}
