"""Units of times and angles, decided once over a whole series and all of its settings together.

A number alone has no unit: 1.2 is an echo time in s or in ms. Every setting is weighed under each unit it may be
in, settings are compared with one another (no echo and no inversion time exceeds TR), and where one reading is
left it is taken. Where none is, or more than one, the caller has to decide.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from pyroqmri.errors import InputError
from pyroqmri.io.units import Stated, span, spelled

IMPOSSIBLE, UNUSUAL, USUAL = 0, 1, 2
TIMES = ("te", "ti", "tr")
# suffixes of gradient echoes, whose signal is gone after 0.3 s
GRADIENT_ECHOES = {"MEGRE", "T2starw", "T2star", "VFA", "MPM", "MTS", "MTR", "MP2RAGE"}
_ENDS_BEFORE = 300.0
_STEADY_STATE_TR = 1500.0  # with a longer TR a gradient echo's signal does not depend on the flip angle
_COUNT = 4  # values that count from 1 on are chance no more
_ECHO_SPACING = 0.4  # ms: no train of echoes is faster
ULTRASHORT = "UTE"  # in place of a suffix: readouts from the centre of k-space, right after the pulse
# ms: the longest echo of a series is no shorter, in a text file, in a sidecar, which states s, and of such readouts
_SHORTEST, _SHORTEST_STATED, _SHORTEST_ULTRASHORT = 0.35, 0.1, 0.02
_USUAL_TE, _USUAL_ULTRASHORT = (2.0, 350.0), (0.1, 40.0)


def decide(stated: Mapping[str, Stated], suffix: str = "") -> tuple[dict[str, str], list[str]]:
    """The unit of each time and angle, and warnings about files that state another one.

    Parameters
    ----------
    stated
        Settings of one scan by name: those of ``TIMES``, and ``flip``.
    suffix
        BIDS suffix of the image, which tells gradient echoes from spin echoes, or ``ULTRASHORT``.

    Raises
    ------
    InputError
        When no unit, or more than one, is possible; both candidates and the remedy are named.
    """
    flips = stated.get("flip")
    steady = flips is not None and np.ptp(flips.values) > 0 and "ti" not in stated
    units: dict[str, str] = {} if flips is None else {"flip": _alone(flips, _flip)}
    times = [stated[name] for name in TIMES if name in stated]
    weigh = {
        "te": lambda v: _te(v, suffix, stated["te"].kind == "sidecar"), "ti": _ti, "tr": lambda v: _tr(v, steady),
    }  # fmt: skip
    options = {s.name: {u: weigh[s.name](s.read_in(u)) for u in ("s", "ms")} for s in times}
    for s in times:
        if s.kind == "name" and s.unit is not None:  # whoever names a file so means it
            others = {u: w for u, w in options[s.name].items() if u != s.unit}
            if options[s.name][s.unit] == IMPOSSIBLE and max(others.values()) == USUAL:
                raise _undecided(s, "its name states {} and in {} it would be usual", s.unit, *others)
            options[s.name] = {s.unit: max(UNUSUAL, options[s.name][s.unit])}
    chosen, warnings = _together(times, options)
    units |= chosen
    doubts = (f(s, units[s.name]) for s in stated.values() for f in (_contradicted, _counted))
    return units, [w for w in doubts if w] + warnings


def _alone(s: Stated, weigh: Callable[[np.ndarray], int]) -> str:
    """The unit of an angle, which nothing else bears on."""
    weights = {u: weigh(s.read_in(u)) for u in ("deg", "rad")}
    if s.kind == "name" and s.unit is not None:
        weights = {s.unit: weights[s.unit]}
    best = max(weights.values())
    if best == IMPOSSIBLE:
        raise _undecided(s, "is neither {} nor {}", *weights)
    stated = 0 if s.unit is None else weights[s.unit]
    if s.unit is not None and (stated == USUAL or (stated and best == stated)):
        return s.unit
    chosen = [u for u, w in weights.items() if w == best]
    if len(chosen) > 1 or stated:
        raise _undecided(s, "may be {} or {}", *weights)
    return chosen[0]


def _together(times: Sequence[Stated], options: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, str], list[str]]:
    """Units of the times: of the combinations that can be, the one that the files state, else the most usual one."""
    by_name = {s.name: s for s in times}
    combinations = [
        dict(zip(options, units, strict=True))
        for units in product(*([u for u, w in choice.items() if w] for choice in options.values()))
    ]
    possible = [c for c in combinations if _goes_together(by_name, c)]
    if not possible:
        raise _impossible(times, options)
    sidecar = [s.name for s in times if s.kind == "sidecar"]
    kept = [c for c in possible if all(c[name] == by_name[name].unit for name in sidecar)]
    # a sidecar whose echo times are in ms has its other times in ms as well
    tier = kept or _alike(possible, sidecar) or possible
    best = [c for c in tier if not any(_dominates(options, other, c) for other in tier)]
    if len(best) > 1:
        raise _ambiguous(times, best)
    warnings = []
    for name in sidecar:
        unit = best[0][name]
        if unit == by_name[name].unit and options[name][unit] == UNUSUAL:
            rivals = [c for c in possible if c[name] != unit]
            if any(options[name][c[name]] == USUAL for c in rivals):
                raise _ambiguous(times, [best[0], rivals[0]])
            if rivals:
                warnings.append(_believed(by_name[name], unit, rivals[0][name]))
    return best[0], warnings


def _alike(combinations: Sequence[dict[str, str]], names: Sequence[str]) -> list[dict[str, str]]:
    """The combinations in which some settings have one unit."""
    return [c for c in combinations if len({c[name] for name in names}) == 1]


def _dominates(options: Mapping[str, Mapping[str, int]], a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    weights = [(options[name][a[name]], options[name][b[name]]) for name in a]
    return all(x >= y for x, y in weights) and any(x > y for x, y in weights)


def _goes_together(stated: Mapping[str, Stated], units: Mapping[str, str]) -> bool:
    """No echo and no inversion time exceeds TR, volume by volume where volumes are known."""
    if "tr" not in units:
        return True
    tr = stated["tr"].read_in(units["tr"])
    for name in ("te", "ti"):
        if name in units:
            other = stated[name].read_in(units[name])
            same = len(other) == len(tr)
            if (other > 1.001 * tr).any() if same else other.max() > 1.001 * tr.max():
                return False
    return True


def _te(v: np.ndarray, suffix: str, of_sidecar: bool) -> int:
    longest, n, ultrashort = v.max(), len(v), suffix == ULTRASHORT
    varies = longest > v.min()
    train = n > 2 and varies and np.allclose(v, v[0] * np.arange(1, n + 1), rtol=0.02)
    if train and v[0] < _ECHO_SPACING and not ultrashort:
        return IMPOSSIBLE
    shortest = _SHORTEST_ULTRASHORT if ultrashort else _SHORTEST_STATED if of_sidecar else _SHORTEST
    gradient_echo = ultrashort or suffix in GRADIENT_ECHOES
    if not (shortest if varies else 0.01) <= longest <= (_ENDS_BEFORE if gradient_echo else 4000.0):
        return IMPOSSIBLE
    low, high = _USUAL_ULTRASHORT if ultrashort else _USUAL_TE
    return USUAL if low <= longest <= high else UNUSUAL


def _ti(v: np.ndarray) -> int:
    if not 25.0 <= v.max() <= 60_000.0:
        return IMPOSSIBLE
    return USUAL if 100.0 <= v.max() <= 10_000.0 else UNUSUAL


def _tr(v: np.ndarray, steady: bool) -> int:
    if not 1.0 <= v.max() <= (_STEADY_STATE_TR if steady else 60_000.0):
        return IMPOSSIBLE
    return USUAL if 2.0 <= v.max() <= 20_000.0 else UNUSUAL


def _flip(v: np.ndarray) -> int:
    largest = np.degrees(v.max())
    if not 0.9 <= largest <= 360.5:
        return IMPOSSIBLE
    return USUAL if 1.8 <= largest <= 183.0 else UNUSUAL


def _readings(s: Stated, units: Sequence[str]) -> list[str]:
    ours = "degrees" if s.name == "flip" else "ms"
    scale = 180 / math.pi if s.name == "flip" else 1.0
    return [f"{spelled(u)} ({span(s.read_in(u) * scale)} {ours})" for u in units]


def _remedy(s: Stated) -> str:
    ends = ("deg", "rad") if s.name == "flip" else ("ms", "s")
    name = {"flip": "FA"}.get(s.name, s.name.upper())
    files = f"{name}_{ends[0]}.txt or {name}_{ends[1]}.txt"
    if s.kind == "sidecar":
        return f"correct the sidecar (BIDS has s and degrees), or give a text file {files} with --{s.name}"
    return f"state the unit in the file's name, {files}"


def _undecided(s: Stated, words: str, *units: str) -> InputError:
    found = words.format(*_readings(s, units))
    return InputError(f"{s.name} in {s.source} is {span(s.values)}: {found}; {_remedy(s)}")


def _ambiguous(times: Sequence[Stated], combinations: Sequence[Mapping[str, str]]) -> InputError:
    for s in times:
        units = sorted({c[s.name] for c in combinations})
        if len(units) > 1:
            return _undecided(s, "may be in {} or in {}", *units)
    raise AssertionError("combinations that do not differ")


def _impossible(times: Sequence[Stated], options: Mapping[str, Mapping[str, int]]) -> InputError:
    for s in times:
        if not any(options[s.name].values()):
            return _undecided(s, "neither {} nor {} is possible", "s", "ms")
    s = next(s for s in times if s.name == "tr")
    rest = " and ".join(f"{t.name} of {span(t.values)} in {t.source}" for t in times if t.name != "tr")
    return InputError(
        f"{s.name} in {s.source} is {span(s.values)}, and neither {' nor '.join(_readings(s, ('s', 'ms')))} goes with "
        f"{rest}: no echo or inversion time exceeds TR; correct the one that is wrong, or give --tr FILE"
    )


def _contradicted(s: Stated, unit: str) -> str | None:
    """A warning where a file's own statement of the unit cannot be true."""
    if s.unit is None or s.unit == unit:
        return None
    impossible, taken = _readings(s, (s.unit, unit))
    return f"{s.name} in {s.source} read as {taken}, because it cannot be in {impossible}, which the file states"


def _counted(s: Stated, unit: str) -> str | None:
    """A warning where echo or inversion times, or angles, are 1, 2, 3 ... as the numbers of images are."""
    n = len(s.values)
    if s.name == "tr" or n < _COUNT or not np.array_equal(np.sort(s.values), np.arange(1, n + 1)):
        return None
    return (
        f"{s.name} in {s.source} counts from 1 to {n}, as image numbers do, and was read as "
        f"{_readings(s, (unit,))[0]}: if these are image numbers, give the values themselves"
    )


def _believed(s: Stated, unit: str, rival: str) -> str:
    """A warning where what a sidecar states is possible, and so is the other unit."""
    taken, other = _readings(s, (unit, rival))
    return f"{s.name} in {s.source} read as {taken}, as BIDS has it; {other} is possible too: check the sidecar"
