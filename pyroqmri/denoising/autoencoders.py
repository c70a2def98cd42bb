"""The autoencoders that a recipe may name."""

from pyroqmri.denoising.autoencoder import Autoencoder
from pyroqmri.denoising.dae import DAE
from pyroqmri.denoising.vae import VAE
from pyroqmri.recipe import Recipe

AUTOENCODERS: dict[str, type[Autoencoder]] = {"vae": VAE, "dae": DAE}


def build_autoencoder(recipe: Recipe, n_measurements: int) -> Autoencoder:
    """The network that a recipe names."""
    return AUTOENCODERS[recipe.kind("autoencoder")](n_measurements, **recipe.table("autoencoder"))
