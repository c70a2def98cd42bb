"""Rankings of recipes by voxels' scores, with standard errors and in words."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyroqmri.comparison.scores import KHAT_BAD
from pyroqmri.diagnostics.arviz_adapter import stacking_weights

CLEAR = 2.0  # standard errors
SMALL = 4.0  # nats; a total difference below it is nothing whatever its standard error
SHARE_BAD = 0.1  # of importance weightings that fail
SURE = 0.95  # probability from which a voxel is said to be decided

# title, unit, whether a prediction of data in nats
CRITERIA = {
    "loo": "PSIS-LOO (a measurement left out)",
    "waic": "WAIC",
    "evidence": "Evidence by importance sampling",
    "folds": "Held-out volumes (k-fold)",
    "shell": "Held-out shell",
}
_OF = {"loo": "measurements", "evidence": "voxels"}
ERRORS = {"folds_error": "Error of held-out volumes", "shell_error": "Error of the held-out shell"}


@dataclass(frozen=True)
class Row:
    """One recipe under one criterion.

    ``total`` is the sum over voxels in nats with standard error ``se``; ``behind`` how far it
    lies behind the best with standard error ``behind_se``; ``weight`` its share in the stacked mixture that predicts
    best, NaN where that is not asked for.
    """

    name: str
    total: float
    se: float
    behind: float
    behind_se: float
    weight: float
    n: int


@dataclass(frozen=True)
class ErrorRow:
    """Root mean square error of the predicted mean over a shell's held-out volumes, in sd of that mean's noise."""

    name: str
    rms: float
    se: float
    n: int


def rank(scores: Mapping[str, np.ndarray], weights: bool = False) -> list[Row]:
    """Recipes by their voxels' scores ``(n,)``, best first.

    Voxels are the units: measurements of one voxel share its parameters. Standard errors of
    differences are those of paired differences.
    """
    total = {name: float(v.sum()) for name, v in scores.items()}
    best = max(total, key=total.__getitem__)
    stacked = stacking_weights(scores) if weights and len(scores) > 1 else {}
    rows = []
    for name in sorted(scores, key=total.__getitem__, reverse=True):
        v, gap = scores[name], scores[best] - scores[name]
        n = len(v)
        se, gap_se = (math.sqrt(n * float(x.var(ddof=1))) if n > 1 else math.nan for x in (v, gap))
        rows.append(Row(name, total[name], se, total[best] - total[name], gap_se, stacked.get(name, math.nan), n))
    return rows


def rank_errors(squares: Mapping[str, np.ndarray]) -> list[ErrorRow]:
    """Recipes by their voxels' mean squared standardised errors ``(n,)``, best first."""
    rows = []
    for name, v in squares.items():
        rms = math.sqrt(float(v.mean()))
        se = float(v.std(ddof=1)) / math.sqrt(len(v)) / (2 * rms) if len(v) > 1 else math.nan
        rows.append(ErrorRow(name, rms, se, len(v)))
    return sorted(rows, key=lambda row: row.rms)


def lead(rows: Sequence[Row], doubtful: Collection[str] = ()) -> str:
    """Who leads, in words; nobody is best by or over a doubtful score."""
    if len(rows) < 2:
        return f"{rows[0].name} is the only recipe"
    first = rows[0]
    tied = [row.name for row in rows[1:] if not is_clear(row)]
    second = rows[1]
    by = f"{second.behind:.1f} ± {second.behind_se:.1f} nats over {second.n} voxels"
    unsure = [row.name for row in rows if row.name in doubtful]
    if not tied and {first.name, second.name} & set(unsure):
        return f"{first.name} is ahead of {second.name} by {by}, but {' and '.join(unsure)} cannot be scored reliably"
    if not tied:
        return f"{first.name} is best, ahead of {second.name} by {by}"
    others = " and ".join(tied)
    return f"{first.name} leads, but {others} cannot be distinguished from it ({second.name} is behind by {by})"


def is_clear(row: Row) -> bool:
    """Whether a recipe is behind by more than chance."""
    return row.behind > max(SMALL, CLEAR * row.behind_se)


@dataclass(frozen=True)
class Comparison:
    """What became of a comparison.

    Attributes
    ----------
    names
        Of the recipes, in the order given.
    scores
        Scores by criterion and recipe, ``(n,)`` each; recipes that are missing from a criterion have none.
    errors
        Mean squared standardised errors by criterion and recipe, ``(n,)`` each; comparable across likelihoods,
        signals and point estimators.
    groups
        Recipes whose densities are of the same data: only those are ranked against one another in nats.
    khat_bad
        Share of importance weightings with a Pareto shape above 0.7, by criterion and recipe: of the voxels for
        evidence, of their measurements for PSIS-LOO.
    notes
        What is to be known of the comparison.
    evidence
        Log density of every voxel's measurements by recipe, ``(N,)``, NaN where it could not be
        fitted: what the map of winners is made of.
    warnings
        What may make every recipe's maps of this scan wrong.
    """

    names: tuple[str, ...]
    scores: dict[str, dict[str, np.ndarray]]
    errors: dict[str, dict[str, np.ndarray]]
    groups: tuple[tuple[str, ...], ...]
    khat_bad: dict[str, dict[str, float]]
    notes: tuple[str, ...] = ()
    evidence: dict[str, np.ndarray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def ranking(self, criterion: str = "loo") -> list[list[Row]]:
        """Rows of a criterion, best first, one list for each group of comparable recipes."""
        found = self.scores.get(criterion, {})
        inside = [{n: found[n] for n in group if n in found} for group in self.groups]
        return [rank(part, weights=criterion == "loo") for part in inside if part]

    def ranking_of_errors(self, criterion: str) -> list[ErrorRow]:
        """Rows of a criterion of errors, best first."""
        return rank_errors(self.errors[criterion]) if self.errors.get(criterion) else []

    @property
    def best(self) -> str:
        """The leader of the first group of comparable recipes, by PSIS-LOO or else by what was left out."""
        order = [c for c in CRITERIA if self.scores.get(c)]
        return self.ranking(order[0])[0][0].name

    def _doubtful(self, criterion: str) -> list[str]:
        return [name for name, share in self.khat_bad.get(criterion, {}).items() if share > SHARE_BAD]

    @property
    def unreliable(self) -> list[str]:
        """Sentences on scores whose importance weights fail in too many voxels."""
        return [
            f"{CRITERIA[criterion]} of {name}: the Pareto shape is above {KHAT_BAD} in "
            f"{100 * self.khat_bad[criterion][name]:.0f} % of {_OF[criterion]}, so this score is unreliable"
            for criterion in self.khat_bad
            for name in self._doubtful(criterion)
            if name in self._ranked
        ]

    @property
    def _ranked(self) -> set[str]:
        """Recipes that there is another one to be ranked against."""
        return {name for group in self.groups if len(group) > 1 for name in group}

    @property
    def winners(self) -> np.ndarray:
        """Probability of each recipe of the first group in each voxel ``(N, R)``, equally likely before the data."""
        stack = np.stack([self.evidence[name] for name in self.groups[0] if name in self.evidence], -1)
        weight = np.exp(stack - stack.max(-1, keepdims=True))
        return weight / weight.sum(-1, keepdims=True)

    @property
    def shares(self) -> dict[str, tuple[float, float]]:
        """Share of voxels where each recipe of the first group is ahead, and where its probability exceeds 0.95.

        Voxels that a recipe could not fit are left out; empty without evidence.
        """
        names = [name for name in self.groups[0] if name in self.evidence] if self.groups else []
        if len(names) < 2:
            return {}
        winners = self.winners
        winners = winners[np.isfinite(winners).all(-1)]
        ahead, sure = winners.argmax(-1), winners > SURE
        n = max(len(winners), 1)
        return {name: (float((ahead == i).sum()) / n, float(sure[:, i].sum()) / n) for i, name in enumerate(names)}

    def by_voxel(self) -> list[str]:
        """A sentence on which recipe is ahead in how many voxels, or none."""
        found = sorted(self.shares.items(), key=lambda item: -item[1][0])
        parts = [f"{name} in {100 * ahead:.0f} % ({100 * sure:.0f} % surely)" for name, (ahead, sure) in found]
        return (
            [f"Voxel by voxel, ahead by evidence (surely: with a probability above {SURE:g}): {', '.join(parts)}"]
            if parts
            else []
        )

    def verdict(self) -> list[str]:
        """One sentence a criterion that has something to compare, and one on single voxels."""
        said = []
        alone = not self._ranked and not any(self.errors.values())
        for criterion, title in CRITERIA.items():
            doubtful = self._doubtful(criterion)
            said += [f"{title}: {lead(rows, doubtful)}" for rows in self.ranking(criterion) if len(rows) > 1 or alone]
        for criterion, title in ERRORS.items():
            rows = self.ranking_of_errors(criterion)
            if rows:
                ends = ", ".join(f"{row.name} {row.rms:.2f} ± {row.se:.2f}" for row in rows)
                said.append(f"{title}, in sd of the noise (1 is noise alone): {ends}")
        return said + self.by_voxel()

    def record(self) -> dict[str, Any]:
        """As plain values, for a file."""
        rankings = {c: [[vars(r) for r in rows] for rows in self.ranking(c)] for c in CRITERIA if self.scores.get(c)}
        errors = {c: [vars(r) for r in self.ranking_of_errors(c)] for c in ERRORS if self.errors.get(c)}
        return {
            "names": list(self.names), "groups": [list(g) for g in self.groups], "rankings": rankings,
            "errors": errors, "khat_bad": self.khat_bad, "verdict": self.verdict(),
            "shares": self.shares, "unreliable": self.unreliable, "notes": list(self.notes),
            "warnings": list(self.warnings),
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join([*self.verdict(), *self.warnings, *self.unreliable, *self.notes])
