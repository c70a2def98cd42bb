"""What a fit's own numbers say against it, in plain language."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from pyroqmri.calibration.predicted import LEAST
from pyroqmri.measurements.status import FINE, STATUS
from pyroqmri.misfit.causes import INTERPOLATION, in_brief
from pyroqmri.posterior.goodness_of_fit import P_MISFIT
from pyroqmri.report import words
from pyroqmri.report.fit_numbers import KHAT_BAD, FitNumbers, numbers_of
from pyroqmri.report.folder_of_maps import FolderOfMaps
from pyroqmri.signals import SIGNALS

NOISE_HIGH, NOISE_LOW = 1.15, 0.87  # learned over measured sigma
FEW = 0.1  # of voxels that are fine
SHARE = 0.05  # of voxels: at a bound, misfitting, without a trusted posterior
MINOR = 0.2  # of voxels that misfit without a cause: those are named, and not all data
_SHARE_LIMIT = f"above {100 * SHARE:g} % of voxels"


@dataclass(frozen=True)
class FitCheck:
    """One thing that was looked at.

    ``state`` is "alarm", "fine" or "unknown"; ``found`` what was seen, ``limit``
    what would be an alarm, ``text`` what an alarm means. Checks of ``kind``
    "misfit" speak about the signal, "bound" about a parameter, "noise" about
    sigma, "predictive" about volumes kept aside, "inference" about the computation, "few" about the status of voxels.
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
    """A sentence, the alarms behind it, every check, and what else has to be said.

    ``level`` is "alarm", "warning", "fine" or "unknown".
    """

    headline: str
    level: str
    checks: tuple[FitCheck, ...]
    remark: str = ""

    @property
    def holds(self) -> bool:
        """Whether checks could be made, and none of them raised an alarm."""
        return not self.alarms and not self.remark and any(check.state == "fine" for check in self.checks)

    @property
    def unknown(self) -> int:
        """How many checks could not be made."""
        return sum(check.state == "unknown" for check in self.checks)

    @property
    def alarms(self) -> tuple[FitCheck, ...]:
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


def judge(fit: FitNumbers) -> Verdict:
    """Every check that the numbers of a fit allow."""
    noun = signal_noun(fit.signal)
    misfit = [_noise(fit.noise_factor, noun), _predictive(fit, noun)]
    powerless = _without_power(fit, noun)
    if powerless:
        misfit = [replace(check, state="unknown", text=Markup()) for check in misfit]
    checks = [misfit[0], *_bounds(fit), misfit[1]]
    checks += [check for check in (_aside(fit.predictive), _khat(fit), _convergence(fit)) if check is not None]
    if not fit.uninformed and not any(check.state == "alarm" for check in checks):
        checks += _few_fine(fit)  # whatever the cause is, of which nothing else is known
    alarms = {check.kind for check in checks if check.state == "alarm"}
    if "misfit" in alarms:
        return _misfitted(fit, noun, checks)
    if fit.uninformed:
        return Verdict(f"This scan does not determine {', '.join(fit.uninformed)}.", "alarm", tuple(checks), powerless)
    if "bound" in alarms:
        return Verdict("These data do not determine every parameter.", "alarm", tuple(checks), powerless)
    if "noise" in alarms:
        return Verdict("The noise level does not look right.", "alarm", tuple(checks), powerless)
    if "predictive" in alarms:
        return Verdict("Volumes kept aside are not predicted as well as stated.", "alarm", tuple(checks), powerless)
    if "inference" in alarms:
        return Verdict("The computation did not succeed everywhere.", "alarm", tuple(checks), powerless)
    if "few" in alarms:
        return Verdict("Hardly any voxel is fine.", "alarm", tuple(checks), powerless)
    if powerless:
        headline = "Model misfit cannot be tested: no more measurements than parameters."
        return Verdict(headline, "unknown", tuple(checks), powerless)
    if all(check.state == "unknown" for check in checks):
        return Verdict("Nothing in these files allows a check of the fit.", "unknown", tuple(checks))
    return Verdict("No check raised an alarm.", "fine", tuple(checks))


def _misfitted(fit: FitNumbers, noun: str, checks: Sequence[FitCheck]) -> Verdict:
    """The verdict where misfit is an alarm: on the data, or on a minority of the voxels."""
    share, known = fit.misfit or 0.0, any(cause != INTERPOLATION for cause in fit.causes)
    noisy = fit.noise_factor is not None and fit.noise_factor > NOISE_HIGH
    if SHARE < share <= MINOR and not known and not noisy:
        return Verdict(
            f"The {noun} signal does not describe {words.percent(share)} of the voxels.", "warning", tuple(checks)
        )
    return Verdict(in_brief(fit.causes, noun), "alarm", tuple(checks))


def with_warnings(verdict: Verdict, warnings: Sequence[str]) -> Verdict:
    """A verdict that is not fine where something was warned of: checks of the fit cannot see a scan that is misread."""
    if not warnings or verdict.level == "alarm":
        return verdict
    n = f"{len(warnings)} warnings" if len(warnings) > 1 else "One warning"
    first = f"{n} about this scan or fit: read {'them' if len(warnings) > 1 else 'it'} before the maps."
    return replace(
        verdict, headline=first if verdict.level == "fine" else f"{first} {verdict.headline}", level="warning"
    )


def judge_folder(folder: FolderOfMaps) -> tuple[Verdict, list[str]]:
    """The verdict on what lies in a folder, and what its record warns of beside the verdict's own alarms."""
    verdict = judge(numbers_of(folder))
    said = {check.plain for check in verdict.alarms}  # a record repeats the alarms among its warnings
    warnings = [warning for warning in dict.fromkeys(folder.warnings) if warning not in said]
    return with_warnings(verdict, warnings), warnings


def _without_power(fit: FitNumbers, noun: str) -> Markup:
    """Why no misfit could ever show, when the model sees no more measurements than it has parameters; else empty."""
    if fit.size is None or fit.size.n_seen > fit.size.n_free:
        return Markup()
    text = Markup(
        "The {} signal has {} free parameters and the model sees {} measurement{}{} per voxel: it can describe nearly "
        "any of them, so neither p-values nor a learned noise level can show a misfit. Data with more b-values could."
    )
    n_free, n_seen, averaged = fit.size
    kind = " (means over directions)" if averaged else ""
    return text.format(noun, n_free, n_seen, "" if n_seen == 1 else "s", kind)


def _noise(factor: float | None, noun: str) -> FitCheck:
    title = Markup("Noise learned by the fit over noise measured")
    limit = f"outside {NOISE_LOW:g} to {NOISE_HIGH:g}"
    if factor is None:
        return FitCheck(title, "unknown", "not learned", limit, Markup(), "noise")
    found = f"{factor:.2f}"
    if factor > NOISE_HIGH:
        text = Markup(
            "Residuals of the {} signal are larger than the noise: the fit needs {} times the measured noise level. "
            "The parameters absorb what the signal cannot describe, and the sd maps do not include that error."
        )
        return FitCheck(title, "alarm", found, limit, text.format(noun, found), "misfit")
    if factor < NOISE_LOW:
        text = Markup(
            "The fit needs a noise level only {} times the measured one: either the measured one is too high "
            "(pulsation between b0 repeats does this) or the signal fits the noise."
        )
        return FitCheck(title, "alarm", found, limit, text.format(found), "noise")
    return FitCheck(title, "fine", found, limit, Markup(), "noise")


def _bounds(fit: FitNumbers) -> list[FitCheck]:
    """An alarm where the data ask for more than a bound allows; estimates that noise puts at a bound are none."""
    checks = []
    for name, share in fit.at_bound.items():
        symbol = words.named(name, fit.symbols[name]) if name in fit.symbols else Markup("{}").format(name)
        found, title = words.percent(share), Markup("Voxels with {} at its bound").format(symbol)
        text = Markup(
            "{} lies at a bound of its range in {} of voxels: there its value is that of the bound, not of the tissue, "
            "and the other parameters of those voxels have adapted to it. Fixing or tying it may help."
        ).format(name, found)
        if name in fit.uninformed:  # wherever it lies: the headline names it, and every voxel has a status of its own
            checks.append(FitCheck(title, "unknown", "not determined", _SHARE_LIMIT, Markup(), "bound"))
            continue
        beyond = share if fit.beyond_bound is None else fit.beyond_bound.get(name, share)
        check = _share_check(title, beyond, text, "bound")
        if fit.beyond_bound is not None and share > 0:
            found = f"{found}; the data favour a value beyond it in {words.percent(beyond)}"
        checks.append(replace(check, found=found))
    return checks


def _predictive(fit: FitNumbers, noun: str) -> FitCheck:
    title, share = Markup("Voxels with {} below {}").format(fit.p_name, f"{P_MISFIT:g}"), fit.misfit
    if share is None:
        return FitCheck(title, "unknown", "no map", _SHARE_LIMIT, Markup(), "misfit")
    text = Markup(
        "In {} of voxels the residuals of the {} signal are larger than noise gives in 999 of 1000 repeats; by chance "
        "it would be {}."
    )
    return _share_check(title, share, text.format(words.percent(share), noun, words.percent(P_MISFIT)), "misfit")


def _share_check(title: Markup, share: float, text: Markup, kind: str) -> FitCheck:
    alarm = share > SHARE
    limit = _SHARE_LIMIT
    return FitCheck(title, "alarm" if alarm else "fine", words.percent(share), limit, text if alarm else Markup(), kind)


def _few_fine(fit: FitNumbers) -> list[FitCheck]:
    """An alarm where the status of nearly all voxels is another than fine."""
    share = fit.codes.get(FINE, 0.0)
    if not fit.codes or share >= FEW:
        return []
    each = "; ".join(f"{words.percent(s)} {STATUS[c]}" for c, s in fit.codes.items() if c != FINE and s >= SHARE)
    text = Markup(
        "Only {} of the voxels in the mask are fine ({}): check the mask, the noise level and the settings, and "
        "whether the signal suits these data."
    ).format(words.percent(share), each)
    title, limit = Markup("Voxels with status fine"), f"below {100 * FEW:g} % of voxels"
    return [FitCheck(title, "alarm", words.percent(share), limit, text, "few")]


def _aside(found: Mapping[str, Any]) -> FitCheck | None:
    """How often predictive intervals contain measurements of volumes kept aside; None where none were."""
    if not found:
        return None
    title = Markup("Measurements kept aside inside 90 % predictive intervals")
    groups = {**found["by_setting"], **found["by_class"]}
    groups |= {f"voxels with status {name}": share for name, share in found["by_status"].items()}
    each = ", ".join(f"{name}: {words.percent(share)}" for name, share in groups.items())
    seen = f"{words.percent(found['inside'])} ({each})"
    text = Markup(
        "90 % predictive intervals contain {} of the measurements in {} volumes that were kept aside for this ({}): "
        "the signal or the noise level is wrong for these data, and intervals of the parameters are too narrow."
    )
    alarm = found["inside"] < LEAST
    said = text.format(words.percent(found["inside"]), len(found["volumes"]), each) if alarm else Markup()
    return FitCheck(title, "alarm" if alarm else "fine", seen, f"below {100 * LEAST:.0f} %", said, "predictive")


def _khat(fit: FitNumbers) -> FitCheck | None:
    share = fit.bad_khat
    if share is None:
        return None
    title = Markup("Voxels with Pareto k above {}").format(f"{KHAT_BAD:g}")
    text = Markup(
        "In {} of voxels the approximate posterior is far from the exact one: the sd maps are unreliable there."
    )
    return _share_check(title, share, text.format(words.percent(share)), "inference")


def _convergence(fit: FitNumbers) -> FitCheck | None:
    share = fit.not_converged
    text = Markup("{} of voxels did not converge; the status map shows which.").format(words.percent(share))
    return _share_check(Markup("Voxels that did not converge"), share, text, "inference") if share > 0 else None
