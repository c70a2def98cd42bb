"""The page over all fits of a demo, written from what lies in its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pyroqmri.commands.demo.signals import EVERY, FOLDER, SIGNALS
from pyroqmri.errors import InputError
from pyroqmri.report import words, write_index
from pyroqmri.report.comparison import legend_square

INDEX, HEADLINE, BEST = "demo.json", "headline.png", "best_signal.png"
GROUPS = (("", 2), ("|error|, median", 3), ("|error|, 90th percentile", 3), ("90 % interval coverage", 3))
SHORT = ("parameter", "voxels", *("LS", "posterior", "own") * 3)  # under GROUPS
HEADER = (*SHORT[:2], *(f"{what} {who}" for what in ("median", "P90", "90 % CI") for who in SHORT[2:5]))
LS, POSTERIOR = "least squares", "posterior mean"
PAIRS = ((LS, LS), (POSTERIOR, LS), (POSTERIOR, POSTERIOR))
_TITLE = "A real brain from a quarter of its volumes"
_INTRO = (
    "{what}. {voxels} voxels, fitted by least squares (LS) and by Pyro models trained with stochastic variational"
    " inference, first from all {n} volumes and then from {k}."
)
_CAPTION = (
    "The same slice from all {n} volumes and from {k}, every shell thinned evenly in direction: least squares, "
    "and mean and standard deviation of the posterior under a learned population (recipe hierarchical). Numbers "
    "are distances to the full scan's least squares in white matter (FA > 0.4, MD < 1.2 µm²/ms). A parameter that"
    " the volumes determine well comes out much the same either way; one that they do not is shrunk away from its "
    "bounds, towards the learned population."
)
_BEST = (
    "Which signal describes this brain, voxel by voxel: in {n} voxels of a slice, {every} apart in each direction, "
    "the signal with the largest evidence under a population that it learned from these voxels, by which signals with "
    "more parameters gain; faint where undecided. Ahead in {shares}.{uncertain} A signal that is ahead need not "
    "describe a voxel: the cards below state which share it misses."
)
_NOTES = (
    "The table compares estimates from the kept volumes with least squares on all of them, which is not the truth: it "
    "has noise and misfit of its own. Columns “own” compare the posterior mean with the posterior mean of the full "
    "scan: where the signal does not fit, the two estimators differ on the full scan already. 90 % coverage is the "
    "share of voxels whose 90 % interval contains that value; about 94 % would be right, because the full scan "
    "contains the kept volumes.",
    "Ball-stick's posterior learns the noise level, because the signal does not fit everywhere; its intervals "
    "widen and its median errors grow. MS-DKI's uses the measured one: the mean over a few directions is not a "
    "powder average, and its intervals do not include that error.",
)


def read_demo(folder: Path) -> dict[str, Any]:
    """The record of a demo.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    try:
        return json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / INDEX} cannot be read: {error}") from error


def demo_table(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """How far estimates from the kept volumes lie from those of the full scan, under a header."""
    rows: dict[tuple[str, ...], dict[tuple[str, str], Any]] = {}
    for d in record["differences"]:
        unit = words.unit_text(d["unit"])
        name = f"{d['signal']} {d['parameter']}" + (f" ({unit})" if unit else "")
        rows.setdefault((name, d["tissue"]), {})[d["estimator"], d["reference"]] = d
    table: list[tuple[str, ...]] = [HEADER]
    for key, found in rows.items():
        columns = [found.get(pair) for pair in PAIRS]
        sizes = [f"{d[size]:.3f}" if d else "" for size in ("median", "p90") for d in columns]
        table.append((*key, *sizes, *(f"{100 * d['inside']:.0f} %" if d else "" for d in columns)))
    return table


def write_demo_index(folder: Path) -> Path:
    """Write ``report.html`` of a demo's folder."""
    record = read_demo(folder)
    data, volumes = record["dataset"], record["volumes"]
    n, k = volumes["all"], len(volumes["kept"])
    what = data["description"][0].upper() + data["description"][1:]
    intro = _INTRO.format(what=what, voxels=record["n_voxels"], n=n, k=k)
    caption = _CAPTION.format(n=n, k=k)
    failed = [f"{name} could not be trained: {why}" for name, why in record["failed"].items()]
    notes = [f"Data: {data['source']}; licence {data['licence']}.", *_NOTES, *failed]
    figures, best = [(folder / HEADLINE, caption)], record.get("signals")
    if best:
        more = Markup(' <a href="{0}/report.html">The whole comparison, with evidence maps</a>.').format(FOLDER)
        figures.append((folder / BEST, _best_caption(best) + more))
    better = better_signals(best) if best else {}
    return write_index(
        folder, _TITLE, figures, record["runs"], [SHORT, *demo_table(record)[1:]], groups=GROUPS, intro=intro,
        notes=notes, better=better,
    )  # fmt: skip


def better_signals(best: Mapping[str, Any]) -> dict[str, str]:
    """By signal, a sentence on the one that is ahead in most voxels of a comparison of signals; none of that itself."""
    shares = dict(zip(best["signals"], best["ahead"], strict=True))
    leader = max(shares, key=lambda name: shares[name])
    first = f"{leader} describes these data better: it is ahead in {words.percent(shares[leader])} of the voxels above"
    found = {name: f"{first}, this signal in {words.percent(share)}." for name, share in shares.items()}
    return {name: sentence for name, sentence in found.items() if name != leader}


def _best_caption(best: Mapping[str, Any]) -> Markup:
    failing = ", ".join(f"{name} ({words.percent(share)})" for name, share in best.get("uncertain", {}).items())
    uncertain = f" Importance weights fail in many voxels of {failing}, whose shares are uncertain." if failing else ""
    shares = _shares(best)
    return Markup(_BEST).format(n=best["n"], every=best.get("every", EVERY), shares=shares, uncertain=uncertain)


def _shares(best: Mapping[str, Any]) -> Markup:
    each = zip(best["signals"], best["ahead"], best["sure"], strict=True)
    said = Markup("{} {} {} (in {} with a probability above 0.95)")
    return Markup("; ").join(
        said.format(legend_square(SIGNALS.index(name)), name, words.percent(ahead), words.percent(sure))
        for name, ahead, sure in sorted(each, key=lambda row: -row[1])
    )
