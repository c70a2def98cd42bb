"""Symbols, units and numbers, as figures and as pages write them."""

import re
from functools import lru_cache

from markupsafe import Markup

from pyroqmri.signals import SIGNALS

_UNITS = {"um2/ms": "µm²/ms", "degrees": "°", "1": ""}
# short words that begin a sentence, unlike names such as dti or te
_WORDS = "a all an at both by each few from in it its mask more no not of one only some the this two when with"
_GREEK = {
    "parallel": "∥", "perp": "⊥", "theta": "θ", "phi": "φ", "sigma": "σ", "alpha": "α", "beta": "β", "kappa": "κ",
    "eta": "η", "gamma": "γ", "delta": "δ", "epsilon": "ε", "lambda": "λ", "mu": "μ", "nu": "ν", "rho": "ρ", "tau": "τ",
    "omega": "ω", "Gamma": "Γ", "Delta": "Δ", "Lambda": "Λ", "Omega": "Ω", "circ": "°", "infty": "∞",
}  # fmt: skip


def unit_text(unit: str) -> str:
    """A unit as people write it; a pure number gives nothing."""
    return _UNITS.get(unit, unit)


def label(symbol: str, unit: str) -> str:
    """Symbol and unit for an axis or a colour bar."""
    written = drawn(unit_text(unit))
    return f"{symbol} ({written})" if written else f"{symbol} (dimensionless)"


def drawn(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


@lru_cache
def math(symbol: str) -> str:
    """A LaTeX symbol for matplotlib; words in subscripts upright. What is no formula is text."""
    from matplotlib.mathtext import MathTextParser

    formula = "$" + re.sub(r"_\{([A-Za-z]{2,})\}", r"_{\\mathrm{\1}}", symbol) + "$"
    try:
        MathTextParser("path").parse(formula)
    except ValueError:
        return drawn(symbol)
    return drawn(symbol) if "$" in symbol else formula


def parts(symbol: str) -> list[tuple[str, str]]:
    r"""A LaTeX symbol such as ``D_\parallel``, ``D_{iso}``, ``D^*`` as pieces of text, each i, sub or sup."""
    text = re.sub(r"\\([A-Za-z]+)", lambda m: _GREEK.get(m[1], m[1]), symbol)
    found = re.findall(r"([_^])(?:\{([^}]*)\}|(.))|([^_^]+)", text)
    kinds = {"": "i", "_": "sub", "^": "sup"}
    return [(kinds[mark], group + single + plain) for mark, group, single, plain in found]


def html(symbol: str) -> Markup:
    """A LaTeX symbol as HTML."""
    return Markup().join(Markup("<{0}>{1}</{0}>").format(Markup(tag), text) for tag, text in parts(symbol))


def named(name: str, symbol: str) -> Markup:
    """A parameter under the name that options take, with its symbol where that reads otherwise."""
    plain = "".join(text for _, text in parts(symbol))
    return html(symbol) if plain == name else Markup("{} ({})").format(name, html(symbol))


def number(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, without exponents where it can be."""
    if value != value:
        return "–"
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{value:.0f}" if abs(value) >= 1 else f"{value:.6f}".rstrip("0")
    return text.replace("-", "−")


def sized(value: float, unit: str) -> str:
    """A number with its unit as people write it."""
    written = unit_text(unit)
    return f"{number(value)} {written}" if written else number(value)


def percent(share: float) -> str:
    """A share as per cent; small ones are not rounded to nothing."""
    if share != share:
        return "–"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def sentence(text: str) -> str:
    """A remark as a sentence: a capital where it begins with a word, and a full stop.

    Names of signals, recipes and settings keep their small letters.
    """
    first = text.partition(" ")[0].rstrip(":,;")
    plain = first.isalpha() and first.islower() and (len(first) > 4 or first in _WORDS.split()) and first not in SIGNALS
    whole = text[:1].upper() + text[1:] if plain else text
    return whole if not text or text.endswith((".", "!", "?", ":")) else whole + "."


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
