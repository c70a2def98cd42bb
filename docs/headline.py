"""Take the figure of a demo, and the numbers behind it, into docs/figures: `python -m docs.headline out/demo`."""

import io
import json
import sys
from pathlib import Path

FIGURES = Path(__file__).parent / "figures"
PAIRS = (
    ("least squares", "least squares"),
    ("posterior mean", "least squares"),
    ("posterior mean", "posterior mean"),
)
HEADS = " | ".join(f"{who}: median | P90 | 90 % CI coverage" for who in ("least squares", "posterior"))
SHOWN = (("ball_stick", "D_par"), ("msdki", "K"))
CAPTION = """\
![The same brain slice from all {n} volumes and from {k} of them](docs/figures/headline.png)

*A real brain, in vivo, 3 T, 2 mm; `make demo` makes this figure. From the left: least squares on all {n} volumes,
then on {k} of them; the posterior mean and its standard deviation on the same {k} (recipe `hierarchical`).*

**From a quarter of the volumes, the largest errors of the diffusivity along the stick go from {before} to {after}
um2/ms** (90th percentile, P90, over {voxels} voxels of white matter), because voxels that least squares leaves at a
bound are constrained by the population of all voxels; the median error goes from {middle}. What a quarter of the
scan determines, such as kurtosis, comes out the same either way:

| \\|error\\| against the full scan, from {k} volumes | {heads} |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

The reference is least squares on the full scan, which has noise and misfit of its own; against the posterior mean of
the full scan the last three columns are {own}. Ball-stick does not describe this brain everywhere: it learns a noise
level {factor:.1f} times the measured one, and the report states that first."""


def take(demo: Path) -> None:
    """Keep the figure in a palette of colours, and the numbers that its caption states."""
    from PIL import Image

    # colour maps have few colours: a palette shows the same in a third of the bytes
    picture = Image.open(demo / "headline.png").convert("RGB").quantize(256, dither=Image.Dither.NONE)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    (FIGURES / "headline.png").write_bytes(content.getvalue())
    record = json.loads((demo / "demo.json").read_text())
    kept = {
        "made": "pyroqmri demo, then python -m docs.headline",
        "version": record["version"],
        "dataset": record["dataset"],
        "volumes": {"all": record["volumes"]["all"], "kept": len(record["volumes"]["kept"])},
        "learned_factor": record["sigma"]["ball_stick, posterior mean"]["learned_factor"],
        "differences": record["differences"],
    }
    (FIGURES / "headline.json").write_text(json.dumps(kept, indent=1) + "\n")


def caption() -> str:
    """The figure and what it shows, for the README; every number is the demo's."""
    record = json.loads((FIGURES / "headline.json").read_text())
    n, k = record["volumes"]["all"], record["volumes"]["kept"]
    rows = {
        (d["signal"], d["parameter"], d["estimator"], d["reference"]): d
        for d in record["differences"]
        if d["tissue"] == "white matter"
    }
    lines, own = [], []
    for signal, parameter in SHOWN:
        pair = [rows[signal, parameter, *pair] for pair in PAIRS]
        unit = "" if pair[0]["unit"] == "1" else f", {pair[0]['unit']}"
        cells = [(f"{d['median']:.2f}", f"{d['p90']:.2f}", f"{100 * d['inside']:.0f} %") for d in pair]
        lines.append(f"| {parameter} of `{signal}`{unit} | " + " | ".join(" | ".join(c) for c in cells[:2]) + " |")
        own.append(f"{', '.join(cells[2])} ({parameter})")
    before, after = (rows[*SHOWN[0], *pair] for pair in PAIRS[:2])
    return CAPTION.format(
        n=n, k=k, factor=record["learned_factor"], voxels=f"{before['n']:,}", rows="\n".join(lines),
        before=f"{before['p90']:.2f}", after=f"{after['p90']:.2f}", own=" and ".join(own), heads=HEADS,
        middle=f"{before['median']:.2f} to {after['median']:.2f}",
    )  # fmt: skip


if __name__ == "__main__":
    take(Path(sys.argv[1]))
