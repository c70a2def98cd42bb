"""Figures and table of docs/accuracy.md, from benchmarks/results/accuracy.json: `python -m docs.accuracy`."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from docs.tables import table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "accuracy.json"
PAGE, FIGURES = ROOT / "docs" / "accuracy.md", ROOT / "docs" / "figures"
OPENING, CLOSING = "<!-- made by python -m docs.accuracy -->", "<!-- end of what was made -->"
TISSUES = ("white matter", "grey matter", "csf")
PARAMETERS = ("D", "K")
SHADES = ("#0b3c5d", "#328cc1", "#d9771f", "#8c2d04", "#7a7a7a")
MEASURES = {
    "ratio": "error over the least possible one",
    "cover90": "share of 90 % intervals that contain the truth",
}
Row = dict[str, Any]


def estimator(row: Row) -> str:
    """An estimator's name, and whether it was told of free water."""
    return row["recipe"] + (", water given" if row["given"] else "")


def groups(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by protocol and by the tissues in the data; each group is a figure."""
    keys = sorted({(r["protocol"], r["tissues"]) for r in rows}, reverse=True)
    return {k: [r for r in rows if (r["protocol"], r["tissues"]) == k] for k in keys}


def values(rows: list[Row], what: str, **where: Any) -> np.ndarray:
    """A measure of the rows that match, one a seed."""
    return np.array([r[what] for r in rows if what in r and all(r[k] == v for k, v in where.items())])


def order(rows: list[Row]) -> list[str]:
    """Estimators, the best of white and grey matter last: it stands on top of the figure."""
    inside = [r | {"name": estimator(r)} for r in rows if r["tissue"] in TISSUES[:2]]
    return sorted({r["name"] for r in inside}, key=lambda n: -np.median(values(inside, "ratio", name=n)))


def draw(rows: list[Row], what: str) -> bytes:
    """A dot for the median over seeds and a line for their range; a panel each parameter and tissue."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r | {"name": estimator(r)} for r in rows]
    names = [n for n in order(rows) if len(values(rows, what, name=n))]
    tissues = [t for t in TISSUES if len(values(rows, what, tissue=t))]
    snrs = sorted({r["snr"] for r in rows})
    size = (1.6 + 2.6 * len(tissues), 1.3 + 2 * (0.16 * len(snrs) + 0.08) * len(names) + 0.8)
    figure, axes = plt.subplots(2, len(tissues), figsize=size, sharey=True, sharex=True, squeeze=False,
                                layout="constrained")  # fmt: skip
    for line, p in zip(axes, PARAMETERS, strict=True):
        for ax, tissue in zip(line, tissues, strict=True):
            for k, snr in enumerate(snrs):
                for i, name in enumerate(names):
                    found = values(rows, what, name=name, parameter=p, tissue=tissue, snr=snr)
                    if not len(found):
                        continue
                    y, colour = i + 0.7 * ((k + 0.5) / len(snrs) - 0.5), SHADES[k % len(SHADES)]
                    ax.plot([found.min(), found.max()], [y, y], color=colour, lw=1.2)
                    ax.plot(np.median(found), y, "o", ms=4, color=colour)
            _finish(ax, what, f"{p}, {tissue}", names)
    dots = [plt.Line2D([], [], marker="o", ls="", ms=4, color=SHADES[k % len(SHADES)]) for k in range(len(snrs))]
    figure.legend(dots, [f"SNR {s:g}" for s in snrs], loc="outside upper center", ncols=len(snrs), frameon=False)
    figure.supxlabel(MEASURES[what], fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, dpi=110)
    plt.close(figure)
    return small(content)


def _finish(ax: Any, what: str, title: str, names: list[str]) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    ax.set_title(title, fontsize=9)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.grid(axis="x", color="0.9", lw=0.6)
    ax.tick_params(axis="x", labelsize=8)
    ax.axvline(1.0 if what == "ratio" else 0.9, color="0.4", lw=0.8)
    if what == "ratio":
        ax.set_xscale("log")
        _, high = ax.get_xlim()
        ticks = [t for t in (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50) if t <= 1.05 * high]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.axvspan(0.88, 0.92, color="0.92", zorder=0)


def small(content: io.BytesIO) -> bytes:
    """A PNG in a palette of colours."""
    from PIL import Image

    picture = Image.open(content).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    kept = io.BytesIO()
    picture.save(kept, "PNG", optimize=True)
    return kept.getvalue()


def cell(found: np.ndarray, digits: int) -> str:
    """Median and range of a few seeds."""
    if not len(found):
        return ""
    middle, low, high = (f"{x:.{digits}f}" for x in (np.median(found), found.min(), found.max()))
    return middle if low == high else f"{middle} ({low}-{high})"


def numbers(rows: list[Row]) -> str:
    """Table of one group: ratios by parameter and tissue, coverage over all voxels, seconds."""
    rows = [r | {"name": estimator(r)} for r in rows]
    tissues = [t for t in TISSUES if len(values(rows, "ratio", tissue=t))]
    head = ("SNR", "estimator", *(f"{p}, {t}" for p in PARAMETERS for t in tissues), "D: 90 %, KS", "K: 90 %, KS", "s")
    lines = []
    for snr in sorted({r["snr"] for r in rows}):
        for name in reversed(order(rows)):
            at = {"snr": snr, "name": name}
            if not len(values(rows, "ratio", **at)):
                continue
            ratios = [cell(values(rows, "ratio", parameter=p, tissue=t, **at), 2) for p in PARAMETERS for t in tissues]
            covers = []
            for p in PARAMETERS:
                pair = [
                    cell(values(rows, w, parameter=p, tissue="all", **at), d) for w, d in (("cover90", 2), ("ks", 3))
                ]
                covers.append(", ".join(x for x in pair if x))
            seconds = f"{np.median(values(rows, 'seconds', **at)):.0f}"
            lines.append((f"{snr:g}", f"`{name}`", *ratios, *covers, seconds))
    return table(head, lines)


def made(rows: list[Row]) -> tuple[str, dict[str, bytes]]:
    """The made part of the page, and its figures by file name."""
    parts, figures = [], {}
    for (protocol, tissues), group in groups(rows).items():
        seeds = len({r["seed"] for r in group})
        said = "all three tissues" if tissues == "all" else "white and grey matter"
        parts.append(f"## {protocol}, {said}")
        for what, title in MEASURES.items():
            if not len(values(group, what)):
                continue
            name = f"accuracy_{what}_{protocol}_{tissues.replace(' ', '_')}.png"
            figures[name] = draw(group, what)
            parts.append(f"![{title[0].upper()}{title[1:]}, {protocol}, {said}](figures/{name})")
        count = f"Median (range) over up to {seeds} data seeds." if seeds > 1 else "One data seed."
        parts.append(f"{count}\n\n{numbers(group)}")
    return "\n\n".join(parts), figures


def page(text: str, content: str) -> str:
    """``text`` with what stands between the markers replaced."""
    before, found, rest = text.partition(OPENING)
    _, also, after = rest.partition(CLOSING)
    if not found or not also:
        raise ValueError(f"the markers of {PAGE.name} are gone")
    return f"{before}{OPENING}\n\n{content}\n\n{CLOSING}{after}"


def main() -> None:
    """Draw, and write page and figures."""
    content, figures = made(json.loads(RESULTS.read_text())["rows"])
    for stale in FIGURES.glob("accuracy_*.png"):
        stale.unlink()
    for name, picture in figures.items():
        (FIGURES / name).write_bytes(picture)
    PAGE.write_text(page(PAGE.read_text(), content))


if __name__ == "__main__":
    main()
