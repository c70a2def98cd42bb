"""What ``fit.json`` says, as rows that a page can show."""

import re
from typing import Any

import numpy as np
from markupsafe import Markup

from pyroqmri.measurements.status import STATUS, UNFITTED
from pyroqmri.report import words
from pyroqmri.report.canvas import status_colour
from pyroqmri.report.fit_numbers import p_name, s0_count
from pyroqmri.report.folder_of_maps import FolderOfMaps
from pyroqmri.signals import SIGNALS

_SIGMA_FROM = {
    "shells": "estimated from the scatter of the volumes of a shell",
    "b0": "estimated from repeated b0 volumes",
    "residual": "estimated from the residuals of least squares",
    "field": "a smooth map learned from the scan itself",
    "background": "estimated from voxels outside the mask",
    "given": "given by the user",
    "learned": "learned with the model",
    "learn": "learned with the model",
}
_SETTINGS = (
    ("te", "TE", "ms"), ("ti", "TI", "ms"), ("tr", "TR", "ms"), ("flip", "Flip angle", "degrees"),
    ("offset", "Offset", "ppm"), ("mt", "Magnetisation transfer pulse", "(on 1, off 0)"),
)  # fmt: skip
_LISTED = 16
_PAPERS = {
    "rician": (
        "Gudbjartsson H, Patz S. The Rician distribution of noisy MRI data. Magn Reson Med 34:910-914, 1995.",
        "10.1002/mrm.1910340618",
    ),
}
_PYRO = "Bingham E et al. Pyro: deep universal probabilistic programming. J Mach Learn Res 20(28):1-6, 2019."
_PPC = (
    "Gelman A, Meng X-L, Stern H. Posterior predictive assessment of model fitness via realized discrepancies. "
    "Stat Sinica 6:733-807, 1996."
)
_PSIS = "Vehtari A et al. Pareto smoothed importance sampling. J Mach Learn Res 25(72):1-58, 2024."


def noise_sentence(record: dict[str, Any]) -> str:
    """The noise level, in the image's units, and where it comes from."""
    sigma = record.get("sigma")
    if not isinstance(sigma, dict) or not isinstance(sigma.get("value"), int | float):
        return "not recorded"
    method, factor = str(sigma.get("method", "")), sigma.get("learned_factor")
    note = re.sub(r"^sigma [\d.e+-]+ ", "", str(sigma.get("note", "")))  # the value is said already
    come = note if note else _SIGMA_FROM.get(method, method)
    source = f" ({come})" if come else ""
    value = float(sigma["value"])
    if factor is None:
        return f"σ = {words.number(value)} in the image's units{source}"
    measured = words.number(value / float(factor))
    return f"σ = {words.number(value)} in the image's units: {factor:.2f}, learned, times {measured}, measured{source}"


def brief(results: FolderOfMaps) -> str:
    """One line for an index."""
    seconds, sigma = results.record.get("seconds"), results.record.get("sigma")
    parts = [f"{words.count(int(results.mask.sum()))} voxels"]
    if isinstance(seconds, dict) and seconds:
        parts.append(words.duration(sum(map(float, seconds.values()))))
    if isinstance(sigma, dict) and isinstance(sigma.get("value"), int | float):
        parts.append(f"σ {words.number(float(sigma['value']))}")
    return ", ".join(parts)


def facts(results: FolderOfMaps) -> list[tuple[str, str]]:
    """The rows at the top of the report."""
    record = results.record
    counts = results.counts
    fitted = sum(n for code, n in counts.items() if code not in UNFITTED)
    total = sum(counts.values())
    voxels = f"{words.count(fitted)} fitted" + ("" if fitted == total else f" of {words.count(total)} in the mask")
    rows = [("Voxels", voxels)]
    seconds = record.get("seconds")
    if isinstance(seconds, dict) and seconds:
        parts = ", ".join(f"{name} {words.duration(float(s))}" for name, s in seconds.items())
        device = record.get("device", "")
        rows.append(
            (
                "Time",
                f"{words.duration(sum(map(float, seconds.values())))} ({parts}){f' on {device}' if device else ''}",
            )
        )
    rows.append(("Noise", noise_sentence(record)))
    if "likelihood" in record:
        rows.append(("Likelihood", str(record["likelihood"]).capitalize()))
    if "s0" in record:
        rows.append(("S0", _s0_sentence(results)))
    held = [f"{k} = {words.number(float(v))}" for k, v in record.get("fixed", {}).items()]
    held += [f"{k} takes the value of {v}" for k, v in record.get("tied", {}).items()]
    if held:
        rows.append(("Held", "; ".join(held)))
    if record.get("sources"):
        rows.append(("Image", ", ".join(map(str, record["sources"]))))
    return rows


def _s0_sentence(results: FolderOfMaps) -> str:
    """How S0 was dealt with, and what it was made of."""
    s0 = results.record["s0"]
    if s0 == "inferred":
        return "inferred: a free parameter per voxel"
    if s0 != "measured":
        return f"{s0}: a known value"
    n = s0_count(results)
    of = "its own S0" if n is None else f"its own S0, made of {n} measurement{'' if n == 1 else 's'}"
    has_sd = any(results.has(name, "sd") for name in results.names)
    return f"measured: each voxel is divided by {of}" + (", whose error is included in the sds" if has_sd else "")


def shells(protocol: dict[str, Any]) -> list[tuple[str, str, str]]:
    """b-value, number of volumes, number of distinct axes; one row a shell."""
    bval = np.asarray(protocol.get("bval") or [], float)
    bvec = protocol.get("bvec")
    axes = None if bvec is None else np.asarray(bvec, float).reshape(-1, 3)
    rows = []
    for b in np.unique(bval.round(3)):
        here = bval.round(3) == b
        distinct = "–" if axes is None or b < 0.05 else words.count(_n_axes(axes[here]))
        rows.append((f"{1000 * b:.0f}", words.count(int(here.sum())), distinct))
    return rows


def _n_axes(axes: np.ndarray) -> int:
    """Number of axes that differ by more than a degree, whatever their sign."""
    same = np.abs(axes @ axes.T) > np.cos(np.deg2rad(1))
    return int((np.triu(same, 1).sum(0) == 0).sum())


def settings(protocol: dict[str, Any]) -> list[tuple[str, str]]:
    """Other settings that the scan was made with."""
    rows = []
    for key, name, unit in _SETTINGS:
        values = np.unique(np.atleast_1d(np.asarray(protocol.get(key) or [], float)))
        shown = [words.number(float(v), 4) for v in (np.degrees(values) if key == "flip" else values)]
        if len(shown) > _LISTED:
            rows.append((name, f"{len(shown)} values from {shown[0]} to {shown[-1]} {unit}"))
        elif shown:
            rows.append((name, f"{', '.join(shown)} {unit}"))
    return rows


def status_rows(results: FolderOfMaps) -> list[tuple[int, str, str, str, str]]:
    """Code, meaning, voxels, share of the mask and colour."""
    total = max(int(results.mask.sum()), 1)
    levels = STATUS | results.levels
    return [
        (code, levels.get(code, "unknown code"), words.count(n), words.percent(n / total), status_colour(code))
        for code, n in sorted(results.counts.items())
    ]


def population_rows(results: FolderOfMaps) -> list[tuple[Markup, list[str]]]:
    """What was learned of the population: one row a quantity, one cell a tissue class."""
    population = results.record.get("population")
    if not isinstance(population, dict):
        return []
    return [(_name(results, k), _cells(v)) for k, v in population.items() if not (k == "weights" and len(v) == 1)]


def _name(results: FolderOfMaps, name: str) -> Markup:
    known = results.has(name, "mean")
    return words.named(name, results.parameter(name).symbol) if known else Markup("{}").format(name)


def _cells(value: Any) -> list[str]:
    if isinstance(value, dict) and "median_and_68%" in value:
        unit = words.unit_text(str(value.get("unit", "1")))
        triples = [[words.number(x) for x in triple] for triple in value["median_and_68%"]]
        return [f"{m} ({low} to {high})" + (f" {unit}" if unit else "") for m, low, high in triples]
    values = value if isinstance(value, list) else [value]
    return [words.number(float(v)) if isinstance(v, int | float) else str(v) for v in values]


def references(results: FolderOfMaps) -> list[tuple[str, str]]:
    """What to cite, each with a DOI or an empty string."""
    rows = []
    if results.signal in SIGNALS:
        model = SIGNALS[results.signal]
        doi = model.source.removeprefix("doi:")
        line = next((s for s in (model.__doc__ or "").splitlines() if s.strip().startswith("Source:")), "")
        text = line.strip().removeprefix("Source:").split(", doi:")[0].strip(" .")
        rows.append((f"Signal: {text if text else results.signal}.", doi))
    likelihood = str(results.record.get("likelihood", "")).lower()
    rows += [_PAPERS[likelihood]] if likelihood in _PAPERS else []
    rows += [(_PYRO, "")] if results.record.get("elbo", {}).get("step") else []
    rows += [(_PPC, "")] if results.has("", "ppc") and p_name(results).startswith("posterior") else []
    rows += [(_PSIS, "")] if results.has("", "khat") else []
    return rows


def tagline(signal: str) -> str:
    """The first line of a signal's docstring."""
    doc = (SIGNALS[signal].__doc__ or "").strip() if signal in SIGNALS else ""
    return doc.splitlines()[0] if doc else ""


def equation_of(signal: str) -> str:
    """The formula in a signal's docstring, empty without one."""
    doc = (SIGNALS[signal].__doc__ or "") if signal in SIGNALS else ""
    _, found, rest = doc.partition(".. math::")
    lines = rest.strip().split("\n\n")[0].splitlines() if found else []
    return " ".join(line.strip() for line in lines)
