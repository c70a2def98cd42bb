"""The generative program of every Bayesian estimator."""

import operator
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyroqmri.decoders import Decoder, IdentityDecoder
from pyroqmri.distributions import Repeats, SharedScale, Weighted
from pyroqmri.errors import InputError, brief
from pyroqmri.laplace.measured_s0 import s0_error
from pyroqmri.laplace.mode import Expansion, expand
from pyroqmri.laplace.start import Shortening, find_start
from pyroqmri.likelihoods import Information, Likelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Population, Prior
from pyroqmri.signals import BoundSignal


class VoxelModel(nn.Module):
    r"""Voxels of a tissue, measured with noise.

    .. math::
        z_n &\sim p(z \mid \text{population}) \\
        \theta_n &= \mathrm{constrain}(\mathrm{decoder}(z_n)) \\
        y_n &\sim p(y \mid S(\theta_n), \sigma_n)

    Parameters
    ----------
    signal
        Physics at one acquisition.
    prior, decoder, likelihood
        The exchangeable parts.
    sigma
        Noise level of voxels that bring none of their own, in units of S0.
    """

    sigma: Tensor

    def __init__(
        self, signal: BoundSignal, prior: Prior, decoder: Decoder, likelihood: Likelihood, sigma: float = 0.05
    ) -> None:
        super().__init__()
        self.signal, self.prior, self.decoder, self.likelihood = signal, prior, decoder, likelihood
        self.register_buffer("sigma", torch.as_tensor(float(sigma)))
        self.short = Shortening(signal, likelihood.n_average is not None or not likelihood.smooth)
        self.n_latents = prior.n_latents
        self.n_unconstrained = signal.n_latents
        self.has_direction = signal.direction is not None
        self.is_identity = isinstance(decoder, IdentityDecoder)

    def forward(
        self, y: Tensor | Voxels | int, size: int | None = None, *, sites: bool = False, predict: bool = False
    ) -> Tensor:
        """The Pyro program.

        Parameters
        ----------
        y
            Measurements ``(N, M)`` or prepared voxels; or how many voxels to simulate, where there are no measurements.
        size
            Number of voxels that the batch stands for; the batch itself when None.
        sites
            Also record the physical parameters as deterministic sites under their names, directions ``(N, 3)``.
        predict
            Sample the measurements anew and do not condition on them: posterior predictive, under a trained guide.

        Returns
        -------
        Tensor
            Measurements ``(N, M)``, observed or simulated.
        """
        simulated = not isinstance(y, Tensor | Voxels)
        voxels = self.prepare(y) if isinstance(y, Tensor | Voxels) else self.unmeasured(_count(y))
        population = self.prior.population()
        with voxel_plate(len(voxels), size, voxels.y.device):
            z = self.prior.latents(population, voxels)
            if sites:
                axes = {p.name for p in self.signal.directions}
                for name, value in self.theta(z, voxels).items():
                    pyro.deterministic(name, value, event_dim=int(name in axes))
            return pyro.sample("y", self.y_dist(z, voxels), obs=None if simulated or predict else voxels.y)

    def unmeasured(self, n: int) -> Voxels:
        """``n`` voxels to simulate, at the model's own noise level; a direction's frame is any, for axes are uniform.

        Raises
        ------
        InputError
            When the signal needs a per-voxel input that has no default: give :class:`Voxels` with ``inputs`` then.
        """
        inputs = {}
        for name in self.signal.signal.inputs:
            default = self.signal.signal.default_input(name)
            if default is None:
                raise InputError(
                    f"{self.signal.signal.__name__} needs the input {name} per voxel, which a number of voxels does "
                    "not give; call the model with Voxels that carry inputs, and predict=True"
                )
            inputs[name] = self.sigma.new_full((n,), default)
        y = self.sigma.new_zeros(n, len(self.signal.acquisition))
        return Voxels(y, self.sigma.expand(n, 1), self.signal.any_frame(n), inputs)

    def prepare(self, y: Tensor | Voxels, mode: bool = False) -> Voxels:
        """Voxels with the noise level and, where the pair needs them, frame and mode filled in."""
        voxels = y if isinstance(y, Voxels) else Voxels(y)
        if voxels.sigma is None:
            voxels = replace(voxels, sigma=self.sigma.expand(len(voxels), 1))
        if voxels.short is None and self.short.serves(voxels):
            voxels = replace(voxels, short=self.short(voxels))
        if voxels.mode is None and (mode or (self.has_direction and voxels.frame is None)):
            signal = self.short.signal_of(voxels)
            short = find_start(voxels if voxels.short is None else voxels.short, signal, self.likelihood)
            voxels = replace(voxels, mode=short.mode, scale_tril=short.scale_tril, frame=short.frame, short=short)
        return voxels

    @torch.no_grad()
    def start(self, voxels: Voxels) -> None:
        """Start the population at the voxels' own modes, where there are any."""
        if voxels.mode is not None:
            n, n_tissue = self.prior.n_tissue, self.signal.n_tissue
            # latents that a decoder has beyond the parameters start at zero, those that it lacks are left out
            self.prior.start(nn.functional.pad(voxels.mode[:, :n_tissue], (0, n - n_tissue)))

    def theta(self, z: Tensor, voxels: Voxels) -> dict[str, Tensor]:
        """Physical parameters of latents ``(..., N, L)``."""
        return self.signal.constrain(self.decoder(z), voxels.frame)

    def simulate_short(self, z: Tensor, voxels: Voxels) -> Tensor:
        """Noise-free measurements of latents as the compressed ``voxels`` have them."""
        return self.short.signal_of(voxels)(self.theta(z, voxels), voxels.inputs)

    def expand_short(self, z: Tensor, voxels: Voxels) -> Expansion:
        """Log-likelihood to second order of latents ``(..., N, L)`` under the compressed ``voxels``."""

        def slopes(u: Tensor) -> tuple[Tensor, Tensor] | None:
            signal = self.short.signal_of(voxels)
            return signal.unconstrained_slopes(u, voxels.frame, voxels.inputs) if self.is_identity else None

        return expand(lambda u: self.simulate_short(u, voxels), self.likelihood, voxels, z, slopes)

    def simulate(self, z: Tensor, voxels: Voxels) -> Tensor:
        """Noise-free measurements ``(..., N, M)`` of latents ``(..., N, L)``."""
        return self.signal(self.theta(z, voxels), voxels.inputs)

    def seen(self, signal: Tensor, voxels: Voxels) -> Information:
        """What each measurement ``(..., N, M)`` states of noise-free ones, times its weight where it counts in part."""
        return self.likelihood.of(voxels).information(signal, voxels.y, voxels.noise).weighted(voxels.weights)

    def discrepancy(self, z: Tensor, voxels: Voxels) -> Tensor:
        """Standardised residual sum of squares ``(..., N)`` of latents.

        A sum of squares is a polynomial, which the nodes of compressed voxels carry exactly.
        """
        short = voxels.short if self.short.serves(voxels) else None
        if short is None:
            return self.residuals(z, voxels).square().sum(-1)
        terms = self._residuals(self.simulate_short(z, short), voxels, short).square()
        return (terms if short.weights is None else terms * short.weights).sum(-1)

    def residuals(self, z: Tensor, voxels: Voxels) -> Tensor:
        """Standardised residuals ``(..., N, M)`` of latents, times the roots of the measurements' weights."""
        found = self._residuals(self.simulate(z, voxels), voxels, voxels)
        return found if voxels.weights is None else found * voxels.weights.sqrt()

    def _residuals(self, signal: Tensor, voxels: Voxels, few: Voxels) -> Tensor:
        """Residuals of ``few``, in units of the noise; a measured S0 moves to where the voxel puts it."""
        likelihood = self.likelihood.of(voxels)
        variance = likelihood.s0_variance(voxels.noise)
        if variance is not None:
            found = likelihood.information(signal, few.y, voxels.noise).weighted(few.weights)
            signal = signal * (1 + s0_error(signal, found.score, found.fisher, variance).shift).unsqueeze(-1)
        mean, variance = likelihood.moments(signal, voxels.noise)
        return (few.y - mean) / variance.sqrt()

    def y_dist(self, z: Tensor, voxels: Voxels) -> TorchDistribution:
        """Distribution of the measurements, batch ``(..., N)`` and event ``(M,)``."""
        short, likelihood = voxels.short if self.short.serves(voxels) else None, self.likelihood.of(voxels)
        signal = self.simulate(z, voxels) if short is None else self.simulate_short(z, short)
        repeats = None if short is None else self._repeats(z, signal, voxels, short, voxels.noise)
        variance = likelihood.s0_variance(voxels.noise)
        if variance is not None:
            return self._shared_scale(z, signal, voxels, repeats, variance)
        if repeats is not None:
            return repeats
        plain = likelihood(signal, voxels.noise)
        if voxels.weights is None:
            return plain
        return Weighted(plain, lambda y: likelihood.information(signal, y, voxels.noise).log_prob, voxels.weights)

    def log_joint(
        self, z: Tensor, voxels: Voxels, most: int | None = None, population: Population | None = None
    ) -> Tensor:
        """Log-density ``(..., N)`` of latents ``(..., N, L)`` and the measurements, at the current population.

        That of the Pyro program's sites ``z`` and ``y`` (discrete sites summed out), for every prior: the program and
        this ask the same :meth:`Prior.log_prob`. At most ``most`` numbers of draws ``(S, N, L)`` are held at a time.
        Another ``population`` may be given.

        Raises
        ------
        InputError
            When the prior has no density of a latent alone.
        """
        prior = self.prior.log_prob(z, self.prior.classes() if population is None else population, voxels)
        if most is None:
            return self.y_dist(z, voxels).log_prob(voxels.y) + prior
        parts = z.split(max(1, most // max(1, voxels.y.numel())))
        return torch.cat([self.y_dist(part, voxels).log_prob(voxels.y) for part in parts]) + prior

    def _shared_scale(
        self, z: Tensor, signal: Tensor, voxels: Voxels, repeats: Repeats | None, variance: Tensor
    ) -> SharedScale:
        """With the error of a measured S0 averaged over."""
        likelihood, powers = self.likelihood.of(voxels), 1.0 if voxels.weights is None else voxels.weights

        def log_prob(y: Tensor) -> Tensor:
            nodes, weights = (y, voxels.weights) if repeats is None else repeats.nodes(y)
            found = likelihood.information(signal, nodes, voxels.noise)
            constant = likelihood.constant
            found = found._replace(log_prob=found.log_prob - constant(nodes)).weighted(weights)
            error = s0_error(signal, found.score, found.fisher, variance)
            return found.log_prob.sum(-1) + (constant(y) * powers).sum(-1) + error.gain

        def at(factor: Tensor) -> TorchDistribution:
            return likelihood(self.simulate(z, voxels) * factor, voxels.noise)

        return SharedScale(at, log_prob, variance.sqrt(), signal.shape[:-1], voxels.y.shape[-1])

    def _repeats(self, z: Tensor, signal: Tensor, voxels: Voxels, short: Voxels, sigma: Tensor) -> Repeats:
        assert short.weights is not None

        def carry(y: Tensor) -> tuple[Tensor, Tensor]:
            rows = y.reshape(-1, y.shape[-1])
            powers = None if voxels.weights is None else voxels.weights.expand(y.shape).reshape(rows.shape)
            again = self.short(replace(voxels, y=rows, short=None, weights=powers))
            assert again.weights is not None
            return tuple(t.reshape(*y.shape[:-1], -1) for t in (again.y, again.weights))  # type: ignore[return-value]

        return Repeats(
            lambda: self.likelihood(self.simulate(z, voxels), sigma),
            lambda nodes: self.likelihood.information(signal, nodes, sigma).log_prob,
            carry,
            self.likelihood.constant,
            (voxels.y, short.y, short.weights),
            signal.shape[:-1],
            voxels.y.shape[-1],
            voxels.weights,
        )


def _count(n: Any) -> int:
    """A number of voxels to simulate."""
    try:
        count = 0 if isinstance(n, bool) else operator.index(n)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(
            f"the model takes measurements (N, M) as a tensor, Voxels, or how many voxels to simulate, 1 or more; got "
            f"{brief(n)}"
        )
    return count


def voxel_plate(n: int, size: int | None, device: torch.device) -> pyro.plate:
    """Plate over ``n`` voxels that stand for ``size``; the caller drew the batch, so nothing is drawn here."""
    if size is None or size == n:
        return pyro.plate("voxels", n, device=str(device))
    return pyro.plate("voxels", size, subsample=torch.arange(n, device=device))
