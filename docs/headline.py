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
HEADS = tuple(
    f"{estimate}: \\|error\\| vs full scan{reference}, median, P90 | 90 % CI coverage"
    for estimate, reference in (("LS", ""), ("posterior", " (LS)"), ("posterior", " (posterior)"))
)
SHOWN = (("ball_stick", "D_par"), ("msdki", "K"))
CAPTION = """\
![The same brain slice from all {n} volumes and from {k} of them](docs/figures/headline.png)

*A real brain, in vivo, 3 T, 2 mm; `make demo` makes this figure. From the left: least squares on all {n} volumes,
then on {k} of them; the posterior mean and its standard deviation on the same {k} (recipe `hierarchical`). A parameter
that a quarter of the scan determines comes out the same either way. One that it does not determine, such as the
diffusivity along the stick, runs into its bounds by least squares, and is constrained by the population of all voxels.*

Absolute difference from the estimate of the full scan in {voxels} voxels of white matter, and the share of voxels whose
90 % credible or confidence interval (CI) covers that estimate. The reference is least squares (LS) on the full scan,
and for the posterior mean also the posterior mean on the full scan. The full scan is not the truth: it has noise and
misfit of its own. Ball-stick does not describe this brain everywhere: it learns a noise level {factor:.1f} times the
measured one, and the report states it.

| from {k} volumes | {heads} |
| --- | --- | --- | --- | --- | --- | --- |
{rows}"""


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
    lines, voxels = [], 0
    for signal, parameter in SHOWN:
        pair = [rows[signal, parameter, *pair] for pair in PAIRS]
        unit = "" if pair[0]["unit"] == "1" else f", {pair[0]['unit']}"
        voxels = pair[0]["n"]
        cells = [f"{d['median']:.2f}, {d['p90']:.2f} | {100 * d['inside']:.0f} %" for d in pair]
        lines.append(f"| {parameter} of `{signal}`{unit} | " + " | ".join(cells) + " |")
    factor = record["learned_factor"]
    return CAPTION.format(n=n, k=k, factor=factor, voxels=f"{voxels:,}", heads=" | ".join(HEADS), rows="\n".join(lines))


if __name__ == "__main__":
    take(Path(sys.argv[1]))
