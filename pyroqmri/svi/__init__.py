"""Stochastic variational inference: the training loop, its checkpoints and interrupts."""

from pyroqmri.svi.loop import KLWeight, SVILoop, Trace, Training, TrainingError, fit_svi, seeded

__all__ = ["KLWeight", "SVILoop", "Trace", "Training", "TrainingError", "fit_svi", "seeded"]
