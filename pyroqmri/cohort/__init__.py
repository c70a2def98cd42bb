"""Many subjects: one fit for a BIDS data set, maps of every image, and what a group shows."""

from typing import Any

__all__ = ["Cohort", "Reading", "Selection", "Workers", "planned", "run_participants"]


def __getattr__(name: str) -> Any:
    # late: a worker that starts imports this package first, and torch takes seconds
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pyroqmri.cohort import participants, task, workers

    return next(getattr(module, name) for module in (participants, task, workers) if hasattr(module, name))
