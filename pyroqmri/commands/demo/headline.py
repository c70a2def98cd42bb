"""The figure that the demo opens with."""

from collections.abc import Mapping

import numpy as np

from pyroqmri.commands.demo.quarter import Difference, Quarter
from pyroqmri.commands.summary import Summary
from pyroqmri.io import Scan
from pyroqmri.maps import scatter
from pyroqmri.parameter import Parameter
from pyroqmri.report import words
from pyroqmri.report.figures import Scale, comparison_panel, png, robust_scale
from pyroqmri.report.geometry import best_view, canonical

ROWS = (("ball_stick", "D_par"), ("msdki", "K"))
TISSUE = "white matter"


def draw_headline(scan: Scan, references: Mapping[str, Mapping[str, Summary]], quarter: Quarter) -> bytes:
    """The same slice from all volumes and from a quarter of them, as PNG."""
    inside, affine = canonical(scan.mask.astype(np.uint8), scan.ref.affine)
    view = best_view(inside > 0, affine, 1)

    def image(values: np.ndarray) -> np.ndarray:
        volume = canonical(scatter(values, scan.mask), scan.ref.affine)[0].astype(float)
        volume[inside == 0] = np.nan
        return view.images(volume)[0]

    n, k = scan.y.shape[1], len(quarter.volumes)
    columns = [
        f"all {n} volumes\nleast squares", f"{k} volumes\nleast squares", f"{k} volumes\nposterior mean",
        f"{k} volumes\nposterior sd",
    ]  # fmt: skip
    volumes, scales, numbers = [], [], []
    for signal, name in ROWS:
        reference = references[signal]["least squares"]
        parts = [quarter.summaries[signal, e] for e in ("least squares", "posterior mean")]
        parameter = reference.parameters[name]
        sd = parts[1].sd[name].numpy()
        maps = [summary.mean[name].numpy() for summary in (reference, *parts)]
        volumes.append([image(values) for values in (*maps, sd)])
        scales.append(_scales(parameter, maps[0], sd))
        numbers.append(_numbers(quarter, signal, parameter))
    titles = [_title(signal, references[signal]["least squares"].parameters[name]) for signal, name in ROWS]
    figure = comparison_panel(
        titles, columns, np.array(volumes), scales, numbers=numbers, aspect=view.aspect, letters=view.letters
    )
    return png(figure)


def _title(signal: str, parameter: Parameter) -> str:
    return f"{words.math(parameter.symbol)}, {parameter.doc}"


def _scales(parameter: Parameter, reference: np.ndarray, sd: np.ndarray) -> list[Scale]:
    symbol = words.math(parameter.symbol)
    bounds = (parameter.lower, parameter.upper)
    shared = robust_scale(reference, symbol, parameter.unit, bounds=bounds)
    return [shared] * 3 + [robust_scale(sd, f"sd of {symbol}", parameter.unit, cmap="inferno", floor=0.0)]


def _numbers(quarter: Quarter, signal: str, parameter: Parameter) -> list[str]:
    wanted = signal, parameter.name, TISSUE
    here = [d for d in quarter.differences if (d.signal, d.parameter, d.tissue) == wanted]
    found = {d.estimator: d for d in here if d.reference == "least squares"}
    if len(found) < 2:
        return [""] * 4
    unit = words.unit_text(parameter.unit)

    def off(d: Difference) -> str:
        return f"|error| {d.median:.2f} {unit}".rstrip() + f" (median),\n{d.p90:.2f} {unit}".rstrip() + " (P90)"

    best = found["posterior mean"]
    return [
        f"the numbers are over\n{best.n} voxels of {TISSUE}", off(found["least squares"]), off(best),
        f"90 % CI coverage of the\nfull scan's value: {100 * best.inside:.0f} %",
    ]  # fmt: skip
