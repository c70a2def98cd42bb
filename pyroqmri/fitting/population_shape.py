"""What a fit notes where its voxels show a population of another shape than the one that it assumes."""

from pyroqmri.fitting.fit import Fit
from pyroqmri.guides.population_shape import gain_of_two_classes
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.svi import seeded


def note_shape(fit: Fit, voxels: Voxels) -> None:
    """Mark a fit whose population, a single Gaussian, is described better by two classes, and warn of it.

    Parameters
    ----------
    fit
        A trained fit, whose population was raised to the evidence.
    voxels
        Its training voxels, prepared.
    """
    assert fit.model is not None and fit.guide is not None
    if len(fit.model.prior.classes().log_weights) > 1:
        return
    with seeded(fit.seed, voxels.y):
        gain = gain_of_two_classes(fit.model, fit.guide, voxels)
    if gain > 0:
        fit.rests_on_shape = True
        fit.warnings.append(
            f"the population of these voxels is not a single Gaussian: two classes have {gain:.2g} nats per voxel more "
            "evidence. Values that the measurements leave open rest on its shape, and their intervals can be too "
            "narrow: such voxels have status 9; compare with recipe hierarchical_mixture, and with uniform, which "
            "learns no population"
        )
