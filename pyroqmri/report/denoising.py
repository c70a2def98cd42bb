"""The report of a denoised image, rebuilt from what lies in its folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pyroqmri import __version__
from pyroqmri.errors import InputError
from pyroqmri.maps import read_image, write_bytes
from pyroqmri.report.canvas import Block, Scale, png, robust_scale
from pyroqmri.report.denoising_figures import residual_histogram, training_figure, traversal_figure
from pyroqmri.report.geometry import View, best_view, canonical, orientation
from pyroqmri.report.page import template
from pyroqmri.report.panels import map_panel
from pyroqmri.report.sections import Picture

_HISTOGRAM = Markup(
    "What was removed, over the noise level, and noise of the assumed kind around the denoised signal. "
    "A perfect denoiser makes the two equal."
)
_IMAGES = Markup(
    "{}: original, denoised, and the difference over the noise level. Anatomy in the difference is signal that was "
    "removed."
)
_TRAVERSAL = Markup(
    "The decoder's output as one latent goes from two spreads below its mean (blue) to two above (red), the others "
    "at their means."
)
_TRAINING = Markup("Mean reconstruction loss at the latents' means, in units of S0, after each epoch.")


def write_denoising_report(folder: Path) -> Path:
    """Write ``report.html`` of a folder that ``denoise`` wrote: one file, no outside resources.

    Raises
    ------
    InputError
        When a file of the folder is missing or damaged.
    """
    try:
        record = json.loads((folder / "denoise.json").read_text())
        fit = json.loads((folder / "fit" / "fit.json").read_text())
        recipe = (folder / "fit" / "recipe.toml").read_text()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no folder of a denoised image, or it is damaged: {error}") from error
    context = {
        "image": record["prefix"], "signal": fit["signal"], "recipe_name": fit["recipe"],
        "findings": record["residual"]["findings"], "checks": _checks(record["residual"]),
        "latents": latent_rows(record["latents"]), "latent_words": latent_words(record["latents"]),
        "histogram": _picture(residual_histogram(record["residual"]), _HISTOGRAM),
        "traversal": _picture(traversal_figure(record["latents"], _by_b(record, fit)), _TRAVERSAL),
        "training": _picture(training_figure(fit["trace"]), _TRAINING),
        "notes": [*fit["notes"], fit["sigma"]["note"]], "recipe": recipe, "seed": fit["seed"],
        "warnings": _scan_warnings(record, fit),
        "weights": fit["weights_sha256"], "version": __version__, **_maps(folder, record, fit["protocol"]),
    }  # fmt: skip
    return write_bytes(folder / "report.html", template("denoising.html.jinja").render(context).encode())


def _scan_warnings(record: dict[str, Any], fit: dict[str, Any]) -> list[str]:
    """What was warned of beside the findings on the residual, which the page has in its own words."""
    findings = [str(finding) for finding in record["residual"]["findings"]]
    said = [str(warning) for warning in fit.get("warnings", [])]
    return [warning for warning in said if not any(warning.endswith(finding) for finding in findings)]


def _picture(figure: Any, caption: Markup) -> Picture:
    return Picture(png(figure), caption, str(caption))


def _checks(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = [
        ("spread, in sigma", f"{r['spread']:.3f}", f"{r['expected_spread']:.3f}"),
        ("mean, in sigma", f"{r['mean']:+.3f}", f"{r['expected_mean']:+.3f}"),
        ("largest distance between the histograms", f"{r['ks']:.3f}", "0"),
    ]
    for axis, value in zip("xyz", r["spatial"], strict=True):
        if value is not None:
            rows.append((f"correlation of neighbouring voxels along {axis}", f"{value:+.3f}", "0"))
    if r["neighbours"] is not None:
        rows.append(("correlation of neighbouring directions", f"{r['neighbours']:+.3f}", "0"))
    rows.append(("mean correlation of all measurements", f"{r['others']:+.3f}", "0"))
    rows.append(("largest eigenvalue of their correlations", f"{r['largest']:.2f}", f"up to {r['edge']:.2f}"))
    return rows


def _by_b(record: dict[str, Any], fit: dict[str, Any]) -> list[int]:
    """Measurements in the order of their b-values, where there are any."""
    n = len(record["latents"]["traversal"][0][0])
    return [int(i) for i in np.argsort(fit["protocol"].get("bval", range(n)), kind="stable")]


def latent_rows(latents: dict[str, Any]) -> list[tuple[str, ...]]:
    """A header, and a row a latent."""
    rows: list[tuple[str, ...]] = [
        ("latent", "mean", "spread over voxels", "posterior sd", "KL (nats)", "contribution", "")
    ]
    for i, contribution in enumerate(latents["contribution"]):
        scale = "–" if latents["scale"] is None else f"{latents['scale'][i]:.3f}"
        kl = "–" if latents["kl"] is None else f"{latents['kl'][i]:.3f}"
        dead = "dead" if i + 1 in latents["dead"] else ""
        numbers = f"{latents['loc'][i]:+.3f}", f"{latents['spread'][i]:.3f}"
        rows.append((str(i + 1), *numbers, scale, kl, f"{contribution:.4f}", dead))
    return rows


def latent_words(latents: dict[str, Any]) -> str:
    """Which latents carry nothing."""
    dead, n = latents["dead"], len(latents["contribution"])
    if not dead:
        return f"All {n} latents contribute."
    return f"{len(dead)} of {n} latents do not contribute: {', '.join(str(i) for i in dead)}."


def _maps(folder: Path, record: dict[str, Any], protocol: dict[str, Any]) -> dict[str, Any]:
    """Slices of the image and of the tensor maps, before and after."""

    def path(ending: str) -> Path:
        return folder / f"{'_'.join(part for part in (record['prefix'], ending) if part)}.nii.gz"

    image = read_image(path("desc-denoised_dwi"))
    affine, oriented = orientation(image)
    mask, turned = canonical(np.asarray(read_image(path("desc-status_mask")).dataobj), affine)
    view = best_view(mask > 0, turned, 1, oriented)
    clean, removed = (
        canonical(np.asarray(read_image(path(f"desc-{d}_dwi")).dataobj), affine)[0] for d in ("denoised", "residual")
    )
    b = np.asarray(protocol.get("bval", np.arange(clean.shape[-1])))
    rows = [
        _row(clean[..., i], removed[..., i], mask, view, record["sigma"]) for i in (int(b.argmin()), int(b.argmax()))
    ]
    titles = [f"b = {1000 * b[i]:.0f}" for i in (b.argmin(), b.argmax())] if "bval" in protocol else ["first", "last"]
    figure = map_panel(rows, aspect=view.aspect, letters=view.letters, row_titles=titles)
    which = "A volume with the lowest and one with the highest b" if "bval" in protocol else "The first and last volume"
    found: dict[str, Any] = {"images": _picture(figure, _IMAGES.format(which)), "tensors": []}
    for name, unit, top in (("FA", "1", 1.0), ("MD", "um2/ms", 3.2)):
        ends = [path(f"model-dti_desc-{when}_param-{name}_dwimap") for when in ("noisy", "denoised")]
        if all(p.is_file() for p in ends):
            volumes = [canonical(np.asarray(read_image(p).dataobj), affine)[0] for p in ends]
            found["tensors"].append(_tensor_picture(volumes, mask, view, Scale(name, unit, 0.0, top)))
    return found


def _shown(volume: NDArray, mask: NDArray, view: View) -> NDArray:
    return view.images(np.where(mask > 0, volume, np.nan))[0]


def _row(clean: NDArray, removed: NDArray, mask: NDArray, view: View, sigma: float) -> list[Block]:
    before, after, difference = (_shown(v, mask, view) for v in (clean + removed, clean, removed / sigma))
    scale = robust_scale(before, "signal", "a.u.", cmap="gray", floor=0.0)
    noise = Scale("removed", "sigma", -4.0, 4.0, "RdBu_r", "both")
    return [Block([before, after], scale, subtitles=("original", "denoised")), Block([difference], noise)]


def _tensor_picture(volumes: list[NDArray], mask: NDArray, view: View, scale: Scale) -> Picture:
    images = [_shown(v, mask, view) for v in volumes]
    difference = images[1] - images[0]
    wide = max(float(np.nanpercentile(np.abs(difference), 98)), 1e-6)
    change = Scale(f"change of {scale.label}", scale.unit, -wide, wide, "RdBu_r", "both")
    blocks = [Block(images, scale, subtitles=("original", "denoised")), Block([difference], change)]
    caption = Markup("{} of a weighted linear tensor fit to volumes up to b = 1500 s/mm², before and after.").format(
        scale.label
    )
    return _picture(map_panel([blocks], aspect=view.aspect, letters=view.letters), caption)
