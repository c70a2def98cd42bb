"""A paragraph for a paper's methods, and the references that it cites, from what was really run."""

import textwrap
import tomllib
from pathlib import Path
from typing import Any

from pyroqmri.maps import write_bytes
from pyroqmri.measurements.status import FINE, UNFITTED
from pyroqmri.parameter import Parameter
from pyroqmri.report import records, words
from pyroqmri.report.bibliography import bibtex, keys_by_doi
from pyroqmri.report.fit_numbers import p_name
from pyroqmri.report.folder_of_maps import FolderOfMaps
from pyroqmri.report.verdict import signal_title
from pyroqmri.signals import SIGNALS

METHODS, REFERENCES = "methods.txt", "references.bib"
_LIKELIHOODS = {
    "rician": ("a Rician likelihood", "gudbjartsson1995"),
    "ncchi": ("a noncentral chi likelihood", "constantinides1997"),
    "gaussian": ("a Gaussian likelihood", ""),
}


def write_methods(results: FolderOfMaps) -> tuple[Path, ...]:
    """Write ``methods.txt`` and the ``references.bib`` of its citations into a folder; nothing without its record."""
    if not results.record:
        return ()
    text, keys = methods(results)
    text += "\n\nKeys in square brackets are entries of references.bib.\n"
    return (
        write_bytes(results.folder / METHODS, text.encode()),
        write_bytes(results.folder / REFERENCES, bibtex(keys).encode()),
    )


def methods(results: FolderOfMaps) -> tuple[str, list[str]]:
    """The paragraphs, citations in pandoc's form, and the keys that they cite in that order."""
    keys: list[str] = []

    def cite(*wanted: str) -> str:
        known = [key for key in wanted if key]
        keys.extend(known)
        return f" [{'; '.join('@' + key for key in known)}]" if known else ""

    parts = [_data(results), _signal(results, cite), _estimator(results, cite), _outcome(results, cite)]
    return "\n\n".join(textwrap.fill(part, 100, break_on_hyphens=False) for part in parts), keys


def _data(results: FolderOfMaps) -> str:
    record = results.record
    protocol = dict(record.get("protocol", {}))
    n = max((len(values) for values in protocol.values() if isinstance(values, list)), default=0)
    rows = [f"{volumes} at b = {b} s/mm2" + (f" ({axes} directions)" if axes.isdigit() and int(axes) > 1 else "")
            for b, volumes, axes in records.shells(protocol)]  # fmt: skip
    settings = [f"{name} {values}" for name, values in records.settings(protocol)]
    sources = ", ".join(map(str, record.get("sources", ()))) or "the scan"
    out = record.get("left_out") or {}
    dropped = f" {len(out['volumes'])} of {out.get('of', n)} volumes were left out." if out.get("volumes") else ""
    made_of = f": {'; '.join([*rows, *settings])}" if rows or settings else ""
    return f"Parameter maps were estimated from {n} volumes of {sources}{made_of}.{dropped}"


def _signal(results: FolderOfMaps, cite: Any) -> str:
    record = results.record
    source = SIGNALS[results.signal].source if results.signal in SIGNALS else ""
    key = keys_by_doi().get(source.removeprefix("doi:").lower(), "")
    held = {**record.get("fixed", {}), **record.get("tied", {})}
    free = [_range(results, name) for name in results.names if name not in held and not results.is_derived(name)]
    fixed = [f"{name} was fixed at {words.number(float(v))}{_unit(results, name)}"
             for name, v in record.get("fixed", {}).items()]  # fmt: skip
    tied = [f"{name} was set equal to {other}" for name, other in record.get("tied", {}).items()]
    s0 = record.get("s0")
    how = {
        "measured": "Each voxel was divided by its own S0", "inferred": "S0 was a free parameter of each voxel"
    }.get(str(s0), f"S0 was taken to be {s0}") if results.signal in SIGNALS and s0 is not None else ""  # fmt: skip
    said = [f"The signal was {signal_title(results.signal)} ({results.signal}){cite(key)}, with the free parameters "
            f"{', '.join(free)}", *fixed, *tied, how]  # fmt: skip
    return ". ".join(part for part in said if part) + "."


def _range(results: FolderOfMaps, name: str) -> str:
    if name in ("theta", "phi"):
        return name
    parameter = results.parameter(name)
    low, high = words.number(parameter.lower), words.number(parameter.upper)
    return f"{name} ({low} to {high}{_unit(results, name)})"


def _unit(results: FolderOfMaps, name: str) -> str:
    table = SIGNALS[results.signal].parameters if results.signal in SIGNALS else ()
    unit = next((p.unit for p in table if p.name == name and isinstance(p, Parameter)), "1")
    return "" if unit == "1" else f" {unit}"


def _estimator(results: FolderOfMaps, cite: Any) -> str:
    record = results.record
    versions = record.get("versions", {})
    recipe = _recipe(results)
    doc = f": {str(recipe['doc']).rstrip('.')}" if recipe.get("doc") else ""
    named, paper = _LIKELIHOODS.get(str(record.get("likelihood", "")), (f"likelihood {record.get('likelihood')}", ""))
    text = (
        f"They were computed with pyroqmri {record.get('pyroqmri', '')} (PyTorch {versions.get('torch', 'unknown')}), "
        f"recipe {record.get('recipe', '')}{doc}. It used {named}{cite(paper)}; "
        f"{records.noise_sentence(record).replace('σ', 'sigma')}."
    )
    steps = record.get("trace", {}).get("step") or []
    if steps and recipe.get("estimator") == "voxel_model":
        text += (
            f" Population and guide were trained by stochastic variational inference in Pyro "
            f"{versions.get('pyro-ppl', '')}{cite('bingham2019')}, {steps[-1]} steps on "
            f"{words.count(int(record.get('n_voxels', 0)))} voxels with seed {record.get('seed', 0)}."
        )
    if (learned := record.get("learned_on")) and recipe.get("estimator") != "point":
        n = max(len(values) for values in learned.values())
        text += f" Both were trained on a scan with another protocol ({n} volumes; {_protocol(learned)})."
    if results.has("", "khat"):
        text += f" Posteriors were corrected or assessed by Pareto-smoothed importance weights{cite('vehtari2024')}."
    return text


def _protocol(settings: dict[str, Any]) -> str:
    """Shells and other settings in words."""
    rows = [f"{volumes} at b = {b} s/mm2" for b, volumes, _ in records.shells(settings)]
    return "; ".join([*rows, *(f"{name} {values}" for name, values in records.settings(settings))])


def _recipe(results: FolderOfMaps) -> dict[str, Any]:
    try:
        return tomllib.loads(results.recipe) if results.recipe else {}
    except tomllib.TOMLDecodeError:
        return {}  # the page is rebuilt from whatever is left of a folder


def _outcome(results: FolderOfMaps, cite: Any) -> str:
    counts, record = results.counts, results.record
    total, fine = sum(counts.values()), counts.get(FINE, 0)
    fitted = total - sum(counts.get(code, 0) for code in UNFITTED)
    sure = any(results.has(name, "q05") for name in results.names)
    text = "Maps are posterior means" if p_name(results).startswith("posterior") else "Maps are point estimates"
    text += ", with standard deviations and 5 % and 95 % quantiles. " if sure else ". "
    n_fitted, n_fine = words.count(fitted), words.count(fine)
    text += f"Of {words.count(total)} voxels in the mask {n_fitted} were fitted and {n_fine} raised no alarm."
    if results.has("", "ppc") and p_name(results).startswith("posterior"):
        text += f" Model misfit was tested in every voxel by a posterior predictive p-value{cite('gelman1996')}."
    aside = record.get("predictive") or {}
    if aside.get("volumes") and "inside" in aside:
        text += (
            f" In a test with {len(aside['volumes'])} volumes kept aside, 90 % predictive intervals contained "
            f"{words.percent(aside['inside'])} of the measurements."
        )
    n = len(results.warnings)
    if n:
        text += f" The fit carried {n} warning{'' if n == 1 else 's'}, listed in report.html."
    return text
