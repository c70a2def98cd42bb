"""What BIDS calls a quantitative map, the units that it has in a file, and what its statistics are in words."""

# the parameters that qMRI-BIDS has a suffix for; a suffix says which quantity a map is, so no other parameter bears it
SUFFIXES = {
    "T1": "T1map",
    "T2": "T2map",
    "T2star": "T2starmap",
    "R1": "R1map",
    "R2": "R2map",
    "R2star": "R2starmap",
    "S0": "S0map",
    "M0": "M0map",
    "PD": "PDmap",
    "MTsat": "MTsat",
    "MTR": "MTRmap",
    "MWF": "MWFmap",
}
NEUTRAL = "map"
FILE_UNITS = {"ms": ("s", 1e-3)}  # BIDS has times in seconds
STATISTICS = {
    "mean": "posterior mean",
    "sd": "posterior standard deviation",
    "q05": "5 % quantile of the posterior",
    "q95": "95 % quantile of the posterior",
}
ASYMPTOTIC = {
    "mean": "estimate",
    "sd": "asymptotic standard error",
    "q05": "estimate - 1.64 asymptotic standard errors",
    "q95": "estimate + 1.64 asymptotic standard errors",
}
POINT = {"mean": "estimate of a network, which has no standard deviation"}


def map_suffix(parameter: str, suffix: str) -> str:
    """Suffix of a parameter's maps: the quantity's own, else its signal's where that is no other quantity's."""
    return SUFFIXES.get(parameter, NEUTRAL if suffix in SUFFIXES.values() else suffix)


def file_unit(unit: str) -> tuple[str, float]:
    """The unit that a quantity has in a file, and the factor that takes it there from its own."""
    return FILE_UNITS.get(unit, (unit, 1.0))


def from_file(unit: str, written: str) -> float:
    """Factor from values in a file, whose sidecar says ``written``, to a quantity's own ``unit``."""
    name, factor = file_unit(unit)
    return 1 / factor if written == name != unit else 1.0
