"""Estimates of prepared voxels, by the kind of estimator."""

from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.pyro_pair import in_default_dtype
from pyroqmri.fitting.schema import class_names, reweighting
from pyroqmri.measurements.preparation import Batch
from pyroqmri.networks.network import NetworkEstimates
from pyroqmri.posterior import Posterior
from pyroqmri.voxelwise.estimates import PointEstimates
from pyroqmri.voxelwise.search import Search, search


def estimates(
    fit: Fit, batch: Batch, n_draws: int | None, progress: bool, reweight: bool | None
) -> Posterior | PointEstimates | NetworkEstimates:
    """Posterior or estimates of the voxels of a batch; the other arguments as in :meth:`pyroqmri.Fit.posterior`."""
    if fit.network is not None:
        network, likelihood = in_default_dtype(fit.network, fit.likelihood)
        return NetworkEstimates(fit.recipe.name, network, likelihood, batch)
    if fit.model is None or fit.guide is None:
        return search(fit.signal, fit.likelihood, batch, Search(**fit.recipe.table("search")), progress)
    settings = reweighting(fit.recipe, n_draws, reweight)
    model, guide = in_default_dtype(fit.model, fit.guide)
    posterior = Posterior(model, guide, batch, settings.draws, progress, fit.recalibration, settings)
    posterior.recipe = fit.recipe.name
    posterior.elbo, posterior.elbo_steps = fit.elbo, fit.trace.step[len(fit.trace.step) - len(fit.elbo) :]
    names = class_names(fit.recipe)
    posterior.class_names = () if names is None else names
    return posterior
