"""What a fit's own records say against it, in plain language."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.measurements.status import NOT_CONVERGED
from pyroqmri.parameter import Parameter
from pyroqmri.posterior.goodness_of_fit import P_MISFIT
from pyroqmri.report import words
from pyroqmri.report.results import Results
from pyroqmri.signals import SIGNALS

NOISE_HIGH, NOISE_LOW = 1.15, 0.87  # learned over measured sigma
SHARE = 0.05  # of voxels: at a bound, misfitting, without a trusted posterior
KHAT_BAD = 0.7
_SHARE_LIMIT = f"above {100 * SHARE:g} % of voxels"
BOUND_MARGIN = 0.01  # of the range; what lies closer to a bound is at it


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    ``state`` is "alarm", "fine" or "unknown"; ``found`` what was seen, ``limit``
    what would be an alarm, ``text`` what an alarm means. Checks of ``kind``
    "misfit" speak about the signal, "bound" about a parameter, "noise" about
    sigma, "inference" about the computation.
    """

    title: Markup
    state: str
    found: str
    limit: str
    text: Markup
    kind: str

    @property
    def plain(self) -> str:
        """What an alarm means, without markup: for a terminal or a record."""
        return self.text.striptags()


@dataclass(frozen=True)
class Verdict:
    """A sentence, the alarms behind it, every check, and what else has to be said."""

    headline: str
    level: str
    checks: tuple[Check, ...]
    remark: str = ""

    @property
    def unknown(self) -> int:
        """How many checks could not be made."""
        return sum(check.state == "unknown" for check in self.checks)

    @property
    def alarms(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if check.state == "alarm")


def signal_noun(name: str) -> str:
    """A signal's name inside a sentence: BallStick is "ball-stick", MSDKI stays."""
    if name not in SIGNALS:
        return name.replace("_", "-")
    parts = re.findall(r"[A-Z0-9]+(?![a-z])|[A-Z][a-z0-9]*", SIGNALS[name].__name__)
    return "-".join(part if part.isupper() else part.lower() for part in parts)


def signal_title(name: str) -> str:
    """A signal's name as a heading."""
    noun = signal_noun(name)
    return noun[0].upper() + noun[1:]


def p_name(results: Results) -> str:
    """What kind of p-value the check map holds."""
    said = str(results.sidecar("", "ppc").get("Description", "")) if results.has("", "ppc") else ""
    return "residual p-value" if said.startswith("p-value of the residual") else "posterior predictive p-value"


def judge(results: Results) -> Verdict:
    """Every check that the files of a fit allow."""
    noun = signal_noun(results.signal)
    misfit = [_noise(results.record.get("sigma"), noun), _predictive(results, noun)]
    powerless = without_power(results, noun)
    if powerless:
        misfit = [replace(check, state="unknown", text=Markup()) for check in misfit]
    checks = [misfit[0], *_bounds(results), misfit[1]]
    checks += [check for check in (_khat(results), _convergence(results)) if check is not None]
    alarms = {check.kind for check in checks if check.state == "alarm"}
    if "misfit" in alarms:
        return Verdict(f"The {noun} signal does not describe these data.", "alarm", tuple(checks))
    if "bound" in alarms:
        return Verdict("These data do not determine every parameter.", "alarm", tuple(checks), powerless)
    if "noise" in alarms:
        return Verdict("The noise level does not look right.", "alarm", tuple(checks), powerless)
    if "inference" in alarms:
        return Verdict("The computation did not succeed everywhere.", "alarm", tuple(checks), powerless)
    if powerless:
        return Verdict("These data cannot speak against this signal.", "unknown", tuple(checks), powerless)
    if all(check.state == "unknown" for check in checks):
        return Verdict("Nothing in these files allows a check of the fit.", "unknown", tuple(checks))
    return Verdict("No check raised an alarm.", "fine", tuple(checks))


def without_power(results: Results, noun: str) -> Markup:
    """Why no misfit could ever show, when the model sees no more measurements than it has parameters; else empty."""
    record = results.record
    if results.signal not in SIGNALS or "preparation" not in record or "protocol" not in record:
        return Markup()
    acquisition = Acquisition(**{name: torch.tensor(value) for name, value in record["protocol"].items()})
    preparation = Preparation(**record["preparation"])
    n_seen = len(preparation.groups(acquisition))
    held = {**record.get("fixed", {}), **record.get("tied", {})}
    n_free = sum(p.n_latents for p in SIGNALS[results.signal].parameters if p.name not in held)
    n_free += preparation.s0 == "inferred"
    if n_seen > n_free:
        return Markup()
    text = Markup(
        "The {} signal has {} free parameters and the model sees {} measurement{}{} in a voxel: it can describe nearly "
        "any of them, so neither p-values nor a learned noise level can show a misfit. Data with more b-values could."
    )
    kind = " (means over directions)" if preparation.average else ""
    return text.format(noun, n_free, n_seen, "" if n_seen == 1 else "s", kind)


def _noise(sigma: Any, noun: str) -> Check:
    title = Markup("Noise learned by the fit over noise measured")
    limit = f"outside {NOISE_LOW:g} to {NOISE_HIGH:g}"
    factor = sigma.get("learned_factor") if isinstance(sigma, dict) else None
    if factor is None:
        return Check(title, "unknown", "not learned", limit, Markup(), "noise")
    found = f"{factor:.2f}"
    if factor > NOISE_HIGH:
        text = Markup(
            "The {} signal leaves more unexplained than noise alone would: the fit needs a noise level {} times the "
            "measured one. The parameters take up what the signal cannot describe, and the sd maps do not know of it."
        )
        return Check(title, "alarm", found, limit, text.format(noun, found), "misfit")
    if factor < NOISE_LOW:
        text = Markup(
            "The fit needs a noise level only {} times the measured one: either the measured one is too high "
            "(pulsation between b0 repeats does this) or the signal follows the noise."
        )
        return Check(title, "alarm", found, limit, text.format(found), "noise")
    return Check(title, "fine", found, limit, Markup(), "noise")


def _bounds(results: Results) -> list[Check]:
    checks = []
    for name, share in _bound_shares(results).items():
        symbol = words.html(results.parameter(name).symbol) if results.has(name, "mean") else Markup("{}").format(name)
        text = Markup(
            "{} lies at a bound of its range in {} of voxels: there its value is that of the bound, not of the tissue, "
            "and the other parameters of those voxels have adapted to it. Fixing or tying it may help."
        )
        title = Markup("Voxels with {} at its bound").format(symbol)
        checks.append(_share_check(title, share, text.format(symbol, words.percent(share)), "bound"))
    return checks


def _bound_shares(results: Results) -> dict[str, float]:
    """Share of voxels with each free parameter at a bound: as recorded, else from the maps."""
    recorded = {k: v for k, v in results.record.get("at_bound", {}).items() if v is not None}
    if recorded or results.signal not in SIGNALS:
        return recorded
    kept = {**results.record.get("fixed", {}), **results.record.get("tied", {})}
    scalars = [p for p in SIGNALS[results.signal].parameters if isinstance(p, Parameter)]
    free = [p for p in scalars if results.has(p.name, "mean") and p.name not in kept]
    return {p.name: _at_bound(p, results.volume(p.name, "mean")[results.mask]) for p in free}


def _at_bound(parameter: Parameter, values: NDArray) -> float:
    width = BOUND_MARGIN * (parameter.upper - parameter.lower)
    finite = values[np.isfinite(values)]
    outside = (finite < parameter.lower + width) | (finite > parameter.upper - width)
    return float(np.mean(outside)) if finite.size else 0.0


def _predictive(results: Results, noun: str) -> Check:
    name = p_name(results)
    title = Markup("Voxels with {} below {}").format(name, f"{P_MISFIT:g}")
    share = share_of(results, "ppc", lambda p: p < P_MISFIT)
    if share is None:
        return Check(title, "unknown", "no map", _SHARE_LIMIT, Markup(), "misfit")
    text = Markup(
        "In {} of voxels the measurements lie further from the fitted {} signal than noise would put them in 999 of "
        "1000 repeats; by chance this would be {}."
    )
    return _share_check(title, share, text.format(words.percent(share), noun, words.percent(P_MISFIT)), "misfit")


def _share_check(title: Markup, share: float, text: Markup, kind: str) -> Check:
    alarm = share > SHARE
    limit = _SHARE_LIMIT
    return Check(title, "alarm" if alarm else "fine", words.percent(share), limit, text if alarm else Markup(), kind)


def _khat(results: Results) -> Check | None:
    share = share_of(results, "khat", lambda k: k > KHAT_BAD)
    if share is None:
        return None
    title = Markup("Voxels with Pareto k above {}").format(f"{KHAT_BAD:g}")
    text = Markup(
        "In {} of voxels the approximate posterior is far from the exact one: "
        "the sd maps are not to be relied on there."
    )
    return _share_check(title, share, text.format(words.percent(share)), "inference")


def _convergence(results: Results) -> Check | None:
    share = results.counts.get(NOT_CONVERGED, 0) / max(int(results.mask.sum()), 1)
    text = Markup("{} of voxels did not converge; the status map says which.").format(words.percent(share))
    return _share_check(Markup("Voxels that did not converge"), share, text, "inference") if share > 0 else None


def share_of(results: Results, description: str, bad: Any) -> float | None:
    """Share of the mask's finite voxels for which ``bad`` holds in a check map; None without the map."""
    if not results.has("", description):
        return None
    values = results.volume("", description)[results.mask]
    values = values[np.isfinite(values)]
    return float(np.mean(bad(values))) if values.size else None
