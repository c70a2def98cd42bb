"""Symbols, units and numbers, as figures and as pages write them."""

import re

from markupsafe import Markup, escape

_UNITS = {"um2/ms": "µm²/ms", "degrees": "°", "1": ""}
_GREEK = {"parallel": "∥", "perp": "⊥", "theta": "θ", "phi": "φ", "sigma": "σ", "alpha": "α", "beta": "β", "kappa": "κ"}


def unit_text(unit: str) -> str:
    """A unit as people write it; a pure number gives nothing."""
    return _UNITS.get(unit, unit)


def label(symbol: str, unit: str) -> str:
    """Symbol and unit for an axis or a colour bar."""
    written = unit_text(unit)
    return f"{symbol} ({written})" if written else f"{symbol} (dimensionless)"


def math(symbol: str) -> str:
    """A LaTeX symbol for matplotlib; words in subscripts upright."""
    return "$" + re.sub(r"_\{([A-Za-z]{2,})\}", r"_{\\mathrm{\1}}", symbol) + "$"


def html(symbol: str) -> Markup:
    r"""A LaTeX symbol such as ``D_\parallel``, ``D_{iso}``, ``D^*`` as HTML."""
    text = re.sub(r"\\(\w+)", lambda m: _GREEK.get(m[1], m[1]), symbol)
    out = Markup()
    for mark, group, single, plain in re.findall(r"([_^])(?:\{([^}]*)\}|(.))|([^_^]+)", text):
        if plain:
            out += Markup("<i>{}</i>").format(plain)
        else:
            tag = Markup("sub" if mark == "_" else "sup")
            out += Markup("<{}>{}</{}>").format(tag, escape(group + single), tag)
    return out


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


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
