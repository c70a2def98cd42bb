"""What a comparison has found so far."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pyroqmri.comparison.ranking import CRITERIA, Comparison
from pyroqmri.comparison.scores import KHAT_BAD

Arrays = dict[str, Tensor]
HELD_OUT = {"folds": "fold", "shell": "shell"}  # criterion, and what its stages are called


class Results:
    """What is known so far, by recipe and stage; plain arrays, so that it can be kept and gone on from."""

    def __init__(self) -> None:
        self.arrays: Arrays = {}

    def add(self, name: str, stage: str, found: Mapping[str, Tensor]) -> None:
        """Take over the arrays of a stage; halves of one score are joined when it is read."""
        self.arrays |= {f"{name}|{stage}|{key}": value for key, value in found.items()}

    def has(self, name: str, stage: str) -> bool:
        """Whether a stage is done."""
        return any(key.startswith(f"{name}|{stage}|") for key in self.arrays)

    def _get(self, name: str, stage: str, key: str) -> list[Tensor]:
        """Arrays of every stage whose name begins so."""
        split = ((k.split("|"), v) for k, v in self.arrays.items())
        return [v for (n, s, kind), v in split if (n, kind) == (name, key) and s.startswith(stage)]

    def joined(self, name: str, key: str) -> Tensor | None:
        """A score of all voxels, from one stage or from halves."""
        parts = [*self._get(name, "scores", key), *self._get(name, "half", key)]
        return torch.nan_to_num(torch.stack(parts), nan=0.0).sum(0) + _nan_where_none(parts) if parts else None

    def comparison(self, names: tuple[str, ...], seen: Mapping[str, str], notes: tuple[str, ...] = ()) -> Comparison:
        """Scores over the voxels that every recipe of a group could score."""
        judged = [n for n in names if self._has_density(n)]
        order = list(dict.fromkeys(seen[n] for n in judged))
        groups = tuple(tuple(n for n in judged if seen[n] == data) for data in order)
        scores: dict[str, dict[str, np.ndarray]] = {}
        for key in CRITERIA:
            for group in groups:
                scores.setdefault(key, {}).update(_finite({n: self._criterion(n, key) for n in group}))
        errors = {f"{c}_error": _finite({n: self._mean_square(n, c) for n in names}) for c in HELD_OUT}
        khat_bad = {
            "loo": {n: _mean(self.joined(n, "bad_loo")) for n in judged},
            "evidence": {n: _mean(self._is_bad(n)) for n in judged},
        }
        whole = {n: self.joined(n, "evidence") for group in groups for n in group}
        evidence = {n: value.numpy() for n, value in whole.items() if value is not None}
        said = (*notes, *_what_is_comparable(groups, [n for n in names if n not in judged]))
        return Comparison(names, scores, errors, groups, khat_bad, said, evidence)

    def _has_density(self, name: str) -> bool:
        """Whether there is any density of data to rank a recipe by."""
        held = [self._criterion(name, key) for key in HELD_OUT]
        found = [value for value in held if value is not None and bool(torch.isfinite(value).any())]
        return self.joined(name, "evidence") is not None or bool(found)

    def _is_bad(self, name: str) -> Tensor | None:
        khat = self.joined(name, "khat")
        return None if khat is None else torch.where(torch.isnan(khat), torch.nan, (khat > KHAT_BAD).double())

    def _criterion(self, name: str, key: str) -> Tensor | None:
        if key not in HELD_OUT:
            return self.joined(name, key)
        parts = self._get(name, HELD_OUT[key], "elpd")
        return torch.stack(parts).sum(0) if parts else None

    def _mean_square(self, name: str, key: str) -> Tensor | None:
        parts = self._get(name, HELD_OUT[key], "square")
        return torch.stack(parts).mean(0) if parts else None


def _nan_where_none(parts: list[Tensor]) -> Tensor:
    none = torch.stack([torch.isnan(p) for p in parts]).all(0)
    return torch.where(none, torch.nan, 0.0).double()


def _finite(found: Mapping[str, Tensor | None]) -> dict[str, np.ndarray]:
    """Arrays over the voxels that all have; recipes without any are left out."""
    there = {n: v for n, v in found.items() if v is not None and bool(torch.isfinite(v).any())}
    if not there:
        return {}
    both = torch.stack([torch.isfinite(v) for v in there.values()]).all(0)
    return {n: v[both].numpy() for n, v in there.items()} if bool(both.any()) else {}


def _mean(values: Tensor | None) -> float:
    finite = torch.empty(0) if values is None else values[~torch.isnan(values)]
    return float(finite.mean()) if len(finite) else 0.0


def _what_is_comparable(groups: tuple[tuple[str, ...], ...], points: list[str]) -> tuple[str, ...]:
    said = []
    if len(groups) > 1:
        listed = " against ".join(" and ".join(group) for group in groups)
        said.append(
            f"{listed} see different data (averaged or not, S0 measured or not), so their nats are ranked apart; "
            "held-out errors are comparable across all"
        )
    if points:
        said.append(
            f"{' and '.join(points)} return point estimates and no posterior: only their held-out errors are compared"
        )
    return tuple(said)
