"""What a fit notes where its voxels show a population of another shape than the one that it assumes."""

from pyroqmri.fitting.fit import Fit
from pyroqmri.guides.population_shape import two_classes
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.svi import seeded

SHIFT = 0.5  # sd by which two classes move a parameter that depends on the population's shape


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
        found = two_classes(fit.model, fit.guide, voxels)
    names = [p.name for p, shift in zip(fit.signal.tissue, found.shift, strict=True) if shift > SHIFT]
    if found.gain > 0 and names:
        fit.rests_on_shape = tuple(names)
        fit.warnings.append(
            f"the population of these voxels is not a single Gaussian: two classes have {found.gain:.2g} nats per "
            f"voxel more evidence, and move {', '.join(names)} by {max(found.shift):.1f} sd. Values that the "
            "measurements leave open rest on its shape, and their intervals can be too narrow: such voxels have "
            "status 9; compare with recipe hierarchical_mixture, and with uniform, which learns no population"
        )
