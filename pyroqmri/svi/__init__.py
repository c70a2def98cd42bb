"""Stochastic variational inference: the training loop, its checkpoints and interrupts."""

from pyroqmri.svi.epochs import one_epoch
from pyroqmri.svi.loop import KLWeight, SVILoop, Training, TrainingError, fit_svi, seeded
from pyroqmri.svi.trace import Trace

__all__ = ["KLWeight", "SVILoop", "Trace", "Training", "TrainingError", "fit_svi", "one_epoch", "seeded"]
