"""The tables of the documentation, made from the registries: `python -m docs.tables` writes them into the files."""

import inspect
import re
from pathlib import Path

from docs.headline import caption
from pyroqmri.fitting.schema import list_recipes
from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals import SIGNALS, SignalModel

QUESTIONS = (
    ("Diffusion: how fast, in which direction", ("adc", "dti", "fwdti")),
    ("Diffusion that is not Gaussian", ("msdki", "dki")),
    ("Fibres and neurites", ("ball_stick", "ball_sticks", "ball_sticks_gamma", "noddi")),
    ("Perfusion", ("ivim",)),
    ("T1", ("t1_inversion_ab", "t1_inversion_ab_signed", "t1_inversion", "t1_inversion_signed", "t1_looklocker",
            "t1_vfa", "t1_vfa_free_b1", "mp2rage", "mp2rage_free_b1")),
    ("T2 and T2*", ("t2_decay", "t2_epg", "t2_epg_given_b1", "t2_floor", "t2_biexp", "t2star_decay")),
    ("Myelin water", ("mwf",)),
    ("Relaxation with diffusion, or with magnetisation transfer", ("t2_adc", "mpm")),
    ("Chemical exchange, frequency of water", ("cest_lorentz", "wassr")),
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bounds(p: Parameter | Direction) -> str:
    """A parameter's bounds, as they are read."""
    return "any axis" if isinstance(p, Direction) else f"{p.lower:.4g} to {p.upper:.4g}" + ", log" * p.log


def source_link(signal: type[SignalModel]) -> str:
    """The paper behind a signal."""
    doi = signal.source.removeprefix("doi:")
    return f"[{signal.source}](https://doi.org/{doi})" if signal.source.startswith("doi:") else signal.source


def questions_table() -> str:
    """One row a question, for the README."""
    rows = []
    for question, names in QUESTIONS:
        for i, name in enumerate(names):
            signal = SIGNALS[name]
            # neither elements of tensors nor angles, which are mapped too, are what one asks for
            described = (*signal.parameters, *signal.derived_parameters)
            listed = [p for p in described if p.unit != "rad" and not re.fullmatch("[DW][xyz]+", p.name)]
            maps = ", ".join(f"`{p.name}`" for p in listed)
            rows.append(("" if i else question, f"`{name}`", maps, " ".join(signal.requires[:3])))
    return table(("question", "signal", "maps", "from"), rows)


def equation(signal: type[SignalModel]) -> tuple[str, str, str]:
    """Title, LaTeX and remarks of a signal, from its docstring."""
    title, _, body = inspect.cleandoc(inspect.getdoc(signal) or "").partition("\n")
    found = re.search(r"\.\. math:: *(.*?)(?:\n\n|\Z)", body, re.DOTALL)
    if found is None:
        raise ValueError(f"{signal.__name__} states no equation")
    remarks = [p for p in body[found.end() :].strip().split("\n\n") if p and not p.startswith("Source:")]
    return title.rstrip("."), " ".join(found[1].split()), "\n\n".join(remarks)


def _also(signal: type[SignalModel]) -> str:
    """What a signal uses where it is known."""
    optional = [f"{name}" for name in signal.optional] + [f"a map of {name}" for name in signal.inputs]
    return f" Uses {' and '.join(optional)} where known." if optional else ""


def expected_line(signal: type[SignalModel]) -> str:
    """What is expected of a population, in words."""
    each = (f"`{n}` {m:g} ± {off:g}, sd {sd:g}" for n, (m, off, sd) in signal.expected.items())
    return f"Expected mean of a population and sd between voxels: {'; '.join(each)}. From {signal.expected_source}."


def signals_page() -> str:
    """The page of all signals."""
    parts = [
        "# Signals",
        "Closed-form MR physics: the noise-free measurement over S0. This page is made from the parameter tables in\n"
        "`pyroqmri/signals/` by `python -m docs.tables`, and a test compares the two.",
        "Inside the package b is in ms/um2, diffusivities are in um2/ms, times in ms and angles in rad. Each bounded\n"
        "parameter has an unconstrained coordinate $u$ with $\\theta = a + (b - a)\\,\\Phi(u)$, so that a standard\n"
        "normal $u$ is exactly a uniform $\\theta$; where the bounds span decades (*log*) that holds of the\n"
        "logarithms, and a recipe's `[range]` that spans less than two decades is uniform again. Directions have\n"
        "a uniform, antipodally symmetric prior.",
        "What is expected of the population of a scan is the hyperprior of `hierarchical`, wide on purpose, and one\n"
        "line replaces it: `--set expected.T2=[120,40,30]` (mean, how far it may be off, sd between voxels within a\n"
        "factor of two; `[]` for nothing expected). It matters where voxels are few or leave a parameter open.",
    ]
    for name, signal in SIGNALS.items():
        title, latex, remarks = equation(signal)
        described = (*signal.parameters, *signal.derived_parameters)
        rows = [
            (f"`{p.name}`", f"${p.symbol}$", p.doc + (" (derived)" if p in signal.derived_parameters else ""), p.unit,
             bounds(p))
            for p in described
        ]  # fmt: skip
        parts += [f"## `{name}`: {title[0].lower()}{title[1:]}", f"$$\n{latex}\n$$", *([remarks] if remarks else [])]
        average = " Describes the mean over gradient directions." if signal.powder_average else ""
        parts += [f"Needs {' and '.join(signal.requires)}.{_also(signal)}{average} Source: {source_link(signal)}."]
        parts += [table(("parameter", "symbol", "what it is", "unit", "bounds"), rows)]
        parts += [expected_line(signal)] if signal.expected else []
    return "\n\n".join(parts) + "\n"


def recipes_table() -> str:
    """One row a recipe, for `models/README.md`."""
    rows = []
    for r in list_recipes():
        kinds = [r.tables.get(t, {}).get("kind", "") for t in ("prior", "decoder", "guide", "likelihood")]
        page = f"[maths](../docs/models/{r.name}.md)"
        rows.append((f"`{r.name}`", r.doc, *kinds, page))
    return table(("recipe", "what it is", "prior", "decoder", "guide", "likelihood", ""), rows)


def put(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the markers of ``name`` replaced."""
    opening, closing = f"<!-- {name}: made by python -m docs.tables -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(opening)
    _, also, after = rest.partition(closing)
    if not found or not also:
        raise ValueError(f"the markers of {name} are gone")
    return f"{before}{opening}\n\n{content}\n\n{closing}{after}"


def pages() -> dict[Path, str]:
    """What each file with a made table has to hold."""
    readme, models = ROOT / "README.md", ROOT / "models" / "README.md"
    front = put(readme.read_text(), "figure", caption())
    return {
        readme: put(front, "questions", questions_table()),
        models: put(models.read_text(), "recipes", recipes_table()),
        ROOT / "docs" / "signals.md": signals_page(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
