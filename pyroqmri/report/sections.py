"""The figures and tables of one fit's report, made from its results."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pyroqmri.posterior.goodness_of_fit import P_MISFIT
from pyroqmri.report import words
from pyroqmri.report.atlas import Atlas, is_angle
from pyroqmri.report.canvas import Block, status_colour
from pyroqmri.report.figures import (
    Scale,
    direction_figure,
    direction_rgb,
    histogram,
    loss_curve,
    png,
    robust_scale,
)
from pyroqmri.report.fit_numbers import KHAT_BAD, p_name
from pyroqmri.report.folder_of_maps import FolderOfMaps

_MISFIT = "#d1495b"


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption, and the words a screen reader says."""

    png: bytes
    caption: Markup
    alt: str


@dataclass(frozen=True)
class Summary:
    """Numbers of one parameter over the fitted voxels."""

    name: str
    symbol: Markup
    unit: str
    doc: str
    how: str
    median: str
    quartiles: str
    sd: str
    variation: str
    interval: str


def held(results: FolderOfMaps, name: str) -> str:
    """How a parameter was kept from being free; empty when it was free."""
    fixed, tied = results.record.get("fixed", {}), results.record.get("tied", {})
    if name in fixed:
        return f"fixed at {words.number(float(fixed[name]))}"
    return f"tied to {tied[name]}" if name in tied else ""


def parameter_picture(atlas: Atlas, name: str) -> Picture:
    """Mean and sd of one parameter, the same slices in the same places."""
    results, parameter = atlas.results, atlas.results.parameter(name)
    title = _statistic(results, name, "mean")
    blocks = [atlas.block(atlas.images(name, "mean"), atlas.scale(parameter, "mean"), words.drawn(title))]
    said = [Markup("<b>{}, {}.</b> ").format(words.named(name, parameter.symbol), parameter.doc)]
    if results.has(name, "sd"):
        second = _statistic(results, name, "sd")
        blocks.append(atlas.block(atlas.images(name, "sd"), atlas.scale(parameter, "sd"), words.drawn(second)))
        said.append(Markup("Left: {}; right: {} on the same slices. ").format(title, second))
    else:
        said.append(Markup("{}; this estimator gives no standard deviation. ").format(title[:1].upper() + title[1:]))
    low, median, high = percentiles(atlas.values(name, "mean"), 2, 50, 98)
    last = words.sized(high, parameter.unit)
    text = "Median {}, 2nd to 98th percentile {} to {}" + ("" if last.endswith(".") else ".")
    said.append(Markup(text).format(words.number(median), words.number(low), last))
    if any(m.any() for b in blocks for m in b.missing):
        said.append(Markup(" Pink voxels have no number; the status table shows why."))
    return Picture(atlas.panel([blocks]), Markup().join(said), f"maps of {parameter.doc}")


def percentiles(values: NDArray, *q: float) -> list[float]:
    """Percentiles of the finite values, NaN when there are none."""
    finite = values[np.isfinite(values)]
    return [float(x) for x in np.percentile(finite, q)] if finite.size else [np.nan] * len(q)


def _statistic(results: FolderOfMaps, name: str, stat: str) -> str:
    said = str(results.sidecar(name, stat).get("Description", ""))
    default = {"mean": "posterior mean", "sd": "posterior standard deviation"}[stat]
    doc = f"{results.parameter(name).doc}: "  # which may have a colon of its own
    text = said.removeprefix(doc) if said.startswith(doc) else said.rsplit(": ", 1)[-1] if ": " in said else ""
    return text.split(",")[0] if text else default


def variation_picture(atlas: Atlas, names: list[str]) -> Picture | None:
    """Coefficients of variation of all parameters on one scale."""
    shown = [n for n in names if atlas.results.has(n, "sd")]
    if not shown:
        return None
    ratios = [variation(atlas.values(n, "mean"), atlas.values(n, "sd")) for n in shown]
    pooled = 100 * np.concatenate(ratios)
    lower, upper = percentiles(pooled[pooled > 0], 2, 98)
    lower, upper = float(np.clip(lower, 0.1, 50.0)), float(np.clip(upper, 2.0, 200.0))
    if not lower < upper:
        return None
    scale = Scale("sd / |mean|", "%", lower, max(upper, 2 * lower), "cividis", "both", log=True)
    titles = [words.math(atlas.results.parameter(n).symbol) for n in shown]
    notes = [f"median {words.percent(percentiles(r, 50)[0])}" for r in ratios]
    caption = Markup(
        "<b>Coefficient of variation</b>, sd over |mean|, one logarithmic colour scale for all; the number is "
        "the median over all fitted voxels. Where a parameter passes through zero, values are large by construction."
    )
    pairs = [zip(atlas.images(n, "mean"), atlas.images(n, "sd"), strict=True) for n in shown]
    maps = [[100 * variation(mean, sd) for mean, sd in pair] for pair in pairs]
    figure = atlas.strip(maps, scale, titles, notes)
    return Picture(figure, caption, "maps of the coefficient of variation")


def variation(mean: NDArray, sd: NDArray) -> NDArray:
    """Ratio of sd to the size of the mean, NaN where that is zero."""
    size = np.abs(mean)
    return np.divide(sd, size, out=np.full_like(mean, np.nan), where=size > 0)


def summary(atlas: Atlas, name: str) -> Summary:
    """One row of the table of numbers."""
    results, parameter = atlas.results, atlas.results.parameter(name)
    mean = atlas.values(name, "mean")
    first, median, third = percentiles(mean, 25, 50, 75)
    sd = cv = width = np.nan
    if results.has(name, "sd"):
        spread = atlas.values(name, "sd")
        sd, cv = percentiles(spread, 50)[0], percentiles(variation(mean, spread), 50)[0]
    if results.has(name, "q95") and results.has(name, "q05"):
        width = percentiles(atlas.values(name, "q95") - atlas.values(name, "q05"), 50)[0]
    return Summary(
        name=name,
        symbol=words.named(name, parameter.symbol),
        unit=words.unit_text(parameter.unit),
        doc=parameter.doc,
        how=held(results, name),
        median=words.number(median),
        quartiles=f"{words.number(first)} to {words.number(third)}",
        sd=words.number(sd),
        variation="–" if is_angle(parameter) else words.percent(cv),
        interval=words.number(width),
    )


def direction_picture(atlas: Atlas, name: str) -> Picture:
    """Axes as colours, weighted by the fraction that has them, and their cone of uncertainty."""
    results = atlas.results
    axes, weighted = atlas.images(name, "mean"), results.has("f", "mean")
    weights = atlas.images("f", "mean") if weighted else [None] * len(axes)
    top = percentiles(atlas.values("f", "mean"), 98)[0] if weighted else 1.0
    rgb = [direction_rgb(n, weight, results.axes, top) for n, weight in zip(axes, weights, strict=True)]
    block = atlas.block(rgb, None, "direction-coded colours" + (", brightness by $f$" if weighted else ""))
    # a fourth channel lets the grey background through
    images = [np.dstack([np.nan_to_num(image), ~np.isnan(image[..., 0])]) for image in block.images]
    cone = None
    along = ("left–right", "front–back", "up–down") if results.oriented else ("first axis", "second axis", "third axis")
    text = "<b>Direction of {}.</b> Red runs along {}, green {}, blue {}; the disc is the key, "
    said = [Markup(text + "seen in the plane of the slices. ").format(words.html(name), *along)]
    if weighted:
        said.append(Markup("Brightness is <i>f</i> over its 98th percentile. "))
    if results.has(name, "cone90"):
        values = atlas.values(name, "cone90")
        scale = robust_scale(values, "90 % cone, half-angle", "degrees", cmap="inferno", floor=0.0)
        cone = atlas.block(atlas.images(name, "cone90"), scale, "cone of uncertainty")
        text = "Right: half-angle of the cone around the mean axis that contains 90 % of the posterior; median {}°."
        said.append(Markup(text).format(words.number(percentiles(values, 50)[0])))
    drawn = replace(block, images=images)
    figure = direction_figure(drawn, cone, aspect=atlas.view.aspect, letters=atlas.view.letters, axis=atlas.view.axis)
    return Picture(png(figure), Markup().join(said), "direction-coded colour map")


def predictive_pictures(atlas: Atlas) -> list[Picture]:
    """Where the signal does not describe the measurements, and how often."""
    name = p_name(atlas.results)
    scale = Scale("p-value", "1", P_MISFIT, 1.0, "cividis", "min", _MISFIT)
    words_map = Markup("<b>Where.</b> {}; red voxels lie below {}.").format(name[0].upper() + name[1:], f"{P_MISFIT:g}")
    words_bars = Markup(
        "<b>How often.</b> The dashed line is the distribution of p-values if signal and noise level are right; "
        "because the same data were fitted, a mild excess away from 0 is expected. A peak at 0 is misfit; a peak at 1 "
        "means overfitting, or a noise level that is too high."
    )
    pictures = [
        Picture(atlas.panel([[atlas.block(atlas.images("", "ppc"), scale)]], 5.0), words_map, f"map of the {name}"),
        Picture(png(histogram(atlas.values("", "ppc"), name)), words_bars, f"histogram of the {name}"),
    ]
    return [*pictures, *([_residual_picture(atlas)] if atlas.results.has("", "residual") else [])]


def _residual_picture(atlas: Atlas) -> Picture:
    """How large the misfit is, which a p-value of many measurements does not say."""
    scale = Scale("rms residual / noise", "1", 0.5, 2.0, "RdBu_r", "both", log=True)
    low, middle, high = (words.number(x) for x in percentiles(atlas.values("", "residual"), 5, 50, 95))
    text = (
        "<b>How far.</b> Root-mean-square residual over the noise level: white is noise alone, red is more; median {}, "
        "90 % of voxels between {} and {}. With many measurements a residual little above 1 is a misfit too."
    )
    figure = atlas.panel([[atlas.block(atlas.images("", "residual"), scale)]], 5.0)
    return Picture(figure, Markup(text).format(middle, low, high), "map of the root-mean-square residual")


def khat_picture(atlas: Atlas) -> Picture:
    """Where the approximate posterior is not the exact one."""
    scale = Scale("Pareto $k$", "1", 0.0, KHAT_BAD, "cividis", "max")
    figure = atlas.panel([[atlas.block(atlas.images("", "khat"), scale)]], 5.0)
    text = "<b>Pareto k</b> of the importance weights. Above {} the approximate posterior is unreliable."
    return Picture(figure, Markup(text).format(f"{KHAT_BAD:g}"), "map of Pareto k")


def class_picture(atlas: Atlas) -> Picture:
    """Probability of each tissue class."""
    images = atlas.images("C", "prob")
    classes = range(images[0].shape[-1])
    maps = [[image[..., c] for image in images] for c in classes]
    names = [words.drawn(name) for name in atlas.results.classes]
    figure = atlas.strip(maps, Scale("probability", "1", 0.0, 1.0, "cividis"), names)
    return Picture(figure, Markup("<b>Tissue classes.</b> Posterior probability of each."), "maps of tissue classes")


def status_picture(atlas: Atlas) -> Picture:
    """Which voxel has which status."""
    images = []
    for codes in atlas.view.images(atlas.results.status):
        rgba = np.zeros((*codes.shape, 4))
        for code in np.unique(codes[codes > 0]):
            rgba[codes == code] = [int(status_colour(int(code))[i : i + 2], 16) / 255 for i in (1, 3, 5)] + [1.0]
        images.append(rgba)
    figure = atlas.panel([[Block(images, None, "", atlas.subtitles)]], 5.0)
    return Picture(figure, Markup("<b>Where.</b> Colours as in the table."), "map of the status of the voxels")


def training_picture(record: Mapping[str, Any]) -> Picture | None:
    """The objective over the steps, if the recipe trains: the ELBO, or minus the loss where that is no bound."""
    elbo, trace = record.get("elbo"), record.get("trace")
    if isinstance(elbo, dict) and len(elbo.get("step", [])) > 1:
        what, step, curves = "Evidence lower bound", elbo["step"], (elbo.get("train", []), elbo.get("held_out", []))
    elif isinstance(trace, dict) and len(trace.get("step", [])) > 1:
        what, step = "Minus the loss", trace["step"]
        curves = tuple([None if x is None else -x for x in trace.get(name, [])] for name in ("train", "held_out"))
    else:
        return None
    label = "ELBO per voxel (nats)" if what.startswith("Evidence") else "minus the loss"
    figure = loss_curve(step, *curves, label)
    caption = Markup("<b>{}</b>").format(what) + Markup(
        " over training; larger is better. The axis leaves out the first tenth of the steps "
        "where they fall below it. A curve that still rises at its end has not been trained long enough."
    )
    return Picture(png(figure), caption, "training curve")


def thumbnail(atlas: Atlas) -> Picture:
    """The first parameter's mean, small, for an index."""
    name = atlas.results.names[0]
    parameter = atlas.results.parameter(name)
    block = replace(atlas.block(atlas.images(name, "mean"), atlas.scale(parameter, "mean")), subtitles=())
    return Picture(atlas.panel([[block]], 2.4), Markup("{}").format(parameter.doc), f"map of {parameter.doc}")
