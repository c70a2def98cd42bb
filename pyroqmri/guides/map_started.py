"""An amortised guide that starts at each voxel's own posterior mode."""

from pyroqmri.distributions import GaussianMixture
from pyroqmri.errors import InputError
from pyroqmri.guides.base import GaussianGuide, perceptron, tril_from
from pyroqmri.guides.features import Features
from pyroqmri.voxel_model import VoxelModel


class MapStarted(GaussianGuide):
    r"""A network that corrects the Laplace approximation of each voxel.

    With the mode :math:`\hat u` under a weak prior and the factor T of its covariance,

    .. math:: q(z \mid y) = \mathcal N(\hat u + T o(y), \; T R(y) R(y)^\top T^\top)

    The network starts near zero, so the guide starts as the Laplace approximation itself.

    Raises
    ------
    InputError
        When the latents are not the physical parameters.
    """

    needs_mode = True

    def __init__(self, model: VoxelModel, n_measurements: int, width: int = 64, depth: int = 2) -> None:
        super().__init__(model)
        if not model.is_identity:
            raise InputError(
                "a MAP-started guide needs the identity decoder: a network's latents have no mode to start at"
            )
        n = model.n_latents
        self.features = Features(0 if model.has_direction else n_measurements, n)
        self.network = perceptron(self.features.size, width, depth, n + n * (n + 1) // 2, last_scale=0.01)

    def start(self, voxels):
        self.features.fit(voxels)

    def z_dist(self, voxels):
        assert voxels.scale_tril is not None
        out = self.network(self.features(voxels))
        n = self.model.n_latents
        shift = (voxels.scale_tril @ out[..., :n, None]).squeeze(-1)
        return GaussianMixture.single(voxels.mode + shift, voxels.scale_tril @ tril_from(out[..., n:], n))
