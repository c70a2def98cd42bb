"""What is written down of a training, and whether it had converged."""

import math
import statistics
from dataclasses import dataclass, field

MIN_LOOKS = 4  # fewer cannot tell a slope from chance
FALLING = 0.02  # nats a voxel over the second half of the steps; a mean that is 0.2 sd off costs as much
N_ERRORS = 2.0  # standard errors a fall must exceed, or it may be chance


@dataclass
class Trace:
    """How the loss, minus ELBO in nats a voxel, went: an entry for each look at it.

    Parameters
    ----------
    step, train, held_out
        Steps done, the running loss of the batches, and the loss of the voxels kept aside.
    seconds
        Time that the training took.
    stopped_early
        The loss had stopped falling before the last step.
    watched
        From half of the steps on, the loss of each of several groups of voxels, with the same noise at every look.
    not_converged
        A sentence when the training should have been longer, or may have been; empty otherwise.
    """

    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped_early: bool = False
    watched: list[list[float]] = field(default_factory=list)
    not_converged: str = ""

    def judge(self) -> None:
        """Find out whether the loss was still falling when the steps ended."""
        self.not_converged = ""
        if self.stopped_early or not self.step:
            return
        ended = f"training ended after {self.step[-1]} steps"
        if len(self.step) < MIN_LOOKS:
            looks = "1 look" if len(self.step) == 1 else f"{len(self.step)} looks"
            self.not_converged = (
                f"{ended} and {looks} at its loss, too few to see whether it has converged; raise training.steps, or "
                "lower training.check_every"
            )
            return
        fall, error = self.late_fall()
        if fall > max(FALLING, N_ERRORS * error):
            self.not_converged = (
                f"{ended} and had not converged: over the second half of them its loss fell by {fall:.2g} nats per "
                f"voxel (standard error {error:.1g}), more than {FALLING:g}; raise training.steps"
            )

    def late_fall(self) -> tuple[float, float]:
        """How far the loss fell over the second half of the steps, and the standard error from group to group."""
        late = [losses for losses in self.watched if losses]
        falls = [before - after for before, after in zip(late[0], late[-1], strict=True)] if late else []
        if len(falls) < 2:
            return math.nan, math.nan
        return statistics.fmean(falls), statistics.stdev(falls) / len(falls) ** 0.5
