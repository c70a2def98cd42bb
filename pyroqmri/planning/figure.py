"""A picture of what measurements gain."""

from typing import TYPE_CHECKING

from pyroqmri.planning.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gain_figure(plan: Plan) -> "Figure":
    """Expected information gain against the number of measurements, with the even choice beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(plan.curve) + 1), plan.curve, color="#1f6f8b", lw=1.5, label="chosen one by one")
    axes.plot(len(plan.index), plan.gain, "o", color="#1f6f8b", label="after exchange")
    axes.plot(len(plan.even), plan.even_gain, "s", color="#c0504d", label="evenly spread")
    axes.axhline(plan.whole_gain, color="0.5", lw=0.8, ls="--", label="all candidates")
    axes.set(xlabel="measurements", ylabel="expected information gain (nats)", ylim=(0, None))
    axes.legend(frameon=False)
    return figure
