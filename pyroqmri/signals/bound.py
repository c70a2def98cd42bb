"""A signal at one acquisition, with some of its parameters fixed or tied."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.parameter import SCAN_UNIT, Box, Direction, Parameter, frame_around
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.own_gradients import along, own_acquisition

S0 = Parameter("S0", "S_0", SCAN_UNIT, 0.0, 4.0, "signal without encoding, over the scan's scale")
_STEP = 1e-5  # of latents


class BoundSignal(nn.Module):
    """A signal model at one acquisition: from latents to parameters to signals.

    Parameters
    ----------
    signal
        The signal model.
    acquisition
        Its settings, kept as buffers so that they move with the module.
    fixed
        Parameters held at a value; those that the signal has ``held`` have theirs already, unless they are tied or in
        ``ranges``.
    tied
        Parameters that take another parameter's value, ``{"D_iso": "D_par"}``.
    infer_s0
        Add S0 as a free parameter; without it signals are S/S0.
    ranges
        Narrower bounds of free parameters, lower and upper.

    Raises
    ------
    InputError
        When a setting is missing, or ``fixed``, ``tied`` or ``ranges`` name no parameter,
        leave the bounds, or leave nothing free.
    """

    def __init__(
        self,
        signal: type[SignalModel],
        acquisition: Acquisition,
        fixed: Mapping[str, float] | None = None,
        tied: Mapping[str, str] | None = None,
        infer_s0: bool = False,
        ranges: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        acquisition.require(*signal.requires)
        self.signal = signal
        self.tied = dict(tied or {})
        self.infer_s0 = infer_s0
        self.ranges = {k: tuple(v) for k, v in (ranges or {}).items()}
        usual = {k: v for k, v in signal.held.items() if k not in self.tied and k not in self.ranges}
        self.fixed = {k: float(v) for k, v in (usual | dict(fixed or {})).items()}
        self._settings = tuple(acquisition.settings())
        for name, value in acquisition.settings().items():
            self.register_buffer(name, value, persistent=False)
        self._check()
        table = signal.parameters + ((S0,) if infer_s0 else ())
        # directions last: priors and decoders treat the leading latents as tissue
        free = [p for p in table if p.name not in self.fixed and p.name not in self.tied]
        self._check_ranges(free)
        self.free = tuple(sorted((self._in_range(p) for p in free), key=lambda p: p.is_direction))
        if not self.free:
            raise InputError(f"{signal.__name__}: every parameter is fixed, nothing is left to fit")

    def _check(self) -> None:
        scalars = {p.name: p for p in self.signal.parameters if isinstance(p, Parameter)}
        for name in (*self.fixed, *self.tied, *self.tied.values()):
            if name not in scalars:
                raise InputError(f"fixed or tied names {name!r}; {self.signal.__name__} has {', '.join(scalars)}")
        for name, value in self.fixed.items():
            p = scalars[name]
            if not p.lower <= value <= p.upper:
                raise InputError(f"{name} is fixed at {value:g}, outside {p.lower:g}..{p.upper:g}")
        for name, target in self.tied.items():
            if target in self.tied or name in self.fixed:
                raise InputError(f"{name} is tied to {target}: tie to a free or fixed parameter, once")

    def _in_range(self, p: Parameter | Direction) -> Parameter | Direction:
        return p.within(*self.ranges[p.name]) if isinstance(p, Parameter) and p.name in self.ranges else p

    def _check_ranges(self, free: Sequence[Parameter | Direction]) -> None:
        scalars = {p.name: p for p in free if isinstance(p, Parameter)}
        table = [p for p in self.signal.parameters if isinstance(p, Parameter) and p.name in scalars]
        middle = {p.name: torch.tensor((p.lower + p.upper) / 2) for p in table}
        for name, pair in self.ranges.items():
            if name not in scalars:
                raise InputError(f"range names {name!r}; free parameters are {', '.join(scalars)}")
            p = scalars[name]
            if not (len(pair) == 2 and p.lower <= pair[0] < pair[1] <= p.upper):
                raise InputError(f"range.{name} must be [lower, upper] in {p.lower:g}..{p.upper:g}, got {list(pair)}")
            if self.box(p, middle) is not None:
                raise InputError(f"range.{name} cannot be set: its bounds follow from the other parameters'")

    @property
    def acquisition(self) -> Acquisition:
        """The settings, on the module's device."""
        return Acquisition.trusted(**{name: getattr(self, name) for name in self._settings})

    def acquisition_of(self, inputs: Mapping[str, Tensor] | None) -> Acquisition:
        """The settings that voxels see, b ``(N, M)`` where their gradients deviate."""
        return own_acquisition(self.acquisition, inputs)

    def at(self, index: Tensor) -> "BoundSignal":
        """The same signal at some of its measurements."""
        return BoundSignal(self.signal, self.acquisition[index], self.fixed, self.tied, self.infer_s0, self.ranges)

    @property
    def tissue(self) -> tuple[Parameter, ...]:
        """The free scalar parameters, in the order of their latents."""
        return tuple(p for p in self.free if isinstance(p, Parameter))

    @property
    def always(self) -> tuple[Parameter, ...]:
        """The free scalar parameters without fractions of parts that may be absent, which lie at zero then."""
        return tuple(p for p in self.tissue if p.name not in self.signal.countable)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The free directions, in the order of their latents."""
        return tuple(p for p in self.free if isinstance(p, Direction))

    @property
    def direction(self) -> Direction | None:
        """The first free direction, if the signal has one."""
        return next(iter(self.directions), None)

    @property
    def axis(self) -> Direction | None:
        """The first direction that maps show: a free one, or one that is derived."""
        return next(iter(self.axes), None)

    @property
    def axes(self) -> tuple[Direction, ...]:
        """The directions that maps show: the free ones, or those that are derived."""
        derived = (p for p in self.signal.derived_parameters if isinstance(p, Direction))
        return self.directions if self.directions else tuple(derived)

    @property
    def scalars(self) -> tuple[Parameter, ...]:
        """The quantities that maps show: free scalar parameters, then derived ones."""
        return (*self.tissue, *(p for p in self.signal.derived_parameters if isinstance(p, Parameter)))

    @property
    def in_scan_units(self) -> tuple[str, ...]:
        """The free parameters that scale with the measurements: S0 where it is one, and a signal's own amplitudes."""
        return tuple(p.name for p in self.free if p.unit == SCAN_UNIT)

    @property
    def n_tissue(self) -> int:
        """Number of tissue latents; they come first."""
        return len(self.tissue)

    @property
    def n_latents(self) -> int:
        """Number of unconstrained coordinates of a voxel."""
        return sum(p.n_latents for p in self.free)

    def box(self, p: Parameter, theta: Mapping[str, Tensor]) -> Box | None:
        """Bounds of a free parameter given the others, of which those that are held or tied are filled in."""
        return self.signal.box(p.name, self.completed(theta))

    def completed(self, theta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters with those that are held (single numbers) or tied filled in."""
        known = {name: torch.tensor(value) for name, value in self.fixed.items()} | dict(theta)
        return known | {name: known[target] for name, target in self.tied.items() if target in known}

    def constrain(self, z: Tensor, frame: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters, each ``(...)`` in physical units (a direction ``(..., 3)``), of latents ``(..., L)``."""
        theta = self.constrain_tissue(z)
        if self.direction is not None:
            assert frame is not None
            theta |= self.named(self.direction.constrain(self.by_direction(z[..., self.n_tissue :]), frame))
        return theta

    def named(self, axes: Tensor) -> dict[str, Tensor]:
        """Axes ``(..., 3)``, or ``(..., K, 3)`` of K directions, by the names of the directions."""
        return {p.name: axes if len(self.directions) == 1 else axes[..., k, :] for k, p in enumerate(self.directions)}

    def axes_of(self, theta: Mapping[str, Tensor]) -> Tensor | None:
        """The other way round; None for a signal without a free direction."""
        if len(self.directions) == 1:
            return theta[self.directions[0].name]
        return torch.stack([theta[p.name] for p in self.directions], -2) if self.directions else None

    def by_direction(self, steps: Tensor) -> Tensor:
        """Coordinates ``(..., 2 K)`` of K directions as ``(..., K, 2)``, of one as they are."""
        return steps if len(self.directions) == 1 else steps.unflatten(-1, (-1, 2))

    def at_axes(self, z: Tensor, theta: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Latents ``(..., L)`` of tissue latents ``(..., P)`` with the axes of ``theta``, and frames around these."""
        axes = self.axes_of(theta)
        if axes is None:
            return z, None
        return torch.cat([z, z.new_zeros(*z.shape[:-1], self.n_latents - self.n_tissue)], -1), frame_around(axes)

    def any_frame(self, n: int) -> Tensor | None:
        """Frames along the scanner's axes, for voxels whose own do not matter; None without a free direction."""
        if not self.directions:
            return None
        shape = (n, 3, 3) if len(self.directions) == 1 else (n, len(self.directions), 3, 3)
        return torch.eye(3).to(next(self.buffers())).expand(shape)

    def constrain_tissue(self, z: Tensor) -> dict[str, Tensor]:
        """Scalar parameters of latents ``(..., L)``, each ``(...)``, of which the first are the tissue's."""
        theta = {name: z.new_full(z.shape[:-1], value) for name, value in self.fixed.items()}
        for i, p in enumerate(self.tissue):
            theta[p.name] = p.constrain(z[..., i], self.box(p, theta))
        for name, target in self.tied.items():
            theta[name] = theta[target]
        return theta

    def unconstrain(self, theta: Mapping[str, Tensor]) -> Tensor:
        """Tissue latents ``(..., n_tissue)`` of parameters in physical units."""
        return torch.stack([p.unconstrain(theta[p.name], self.box(p, theta)) for p in self.tissue], -1)

    def forward(self, theta: Mapping[str, Tensor], inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Noise-free measurements ``(..., M)``."""
        signal = self.signal.signal(self.acquisition_of(inputs), **self._arguments(theta, inputs))
        return signal * theta["S0"].unsqueeze(-1) if self.infer_s0 else signal

    def first_guess(self, y: Tensor) -> dict[str, Tensor]:
        """Free parameters, each ``(N,)``, of the signal's own formula; none where it has none or some are held."""
        if self.fixed or self.tied:
            return {}
        guess = self.signal.first_guess(self.acquisition, y)
        return {p.name: guess[p.name] for p in self.free} if {p.name for p in self.free} <= set(guess) else {}

    @property
    def has_slopes(self) -> bool:
        """Whether it has a formula for its slopes, one direction at most, and bounds that do not depend on others."""
        here, base = self.signal, SignalModel
        return len(self.directions) < 2 and here.slopes is not base.slopes and here.box.__func__ is base.box.__func__  # type: ignore[attr-defined]

    def slopes(
        self, theta: Mapping[str, Tensor], inputs: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Noise-free measurements and their derivatives by each parameter, each ``(..., M)``.

        The derivative by a direction is that by its cosine with the gradient. For signals that have a formula.
        """
        signal, columns = self.signal.slopes(self.acquisition_of(inputs), **self._arguments(theta, inputs))
        by = {p.name: d for p, d in zip(self.signal.parameters, columns, strict=True)}
        for name, target in self.tied.items():
            by[target] = by[target] + by[name]
        if not self.infer_s0:
            return signal, by
        s0 = theta["S0"].unsqueeze(-1)
        return signal * s0, {name: d * s0 for name, d in by.items()} | {"S0": signal}

    @torch.no_grad()
    def unconstrained_slopes(
        self, z: Tensor, frame: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Measurements ``(..., M)`` of latents ``(..., L)`` and their derivatives by these ``(..., M, L)``.

        None for signals without a formula.
        """
        if self.signal.slopes is SignalModel.slopes:
            return None
        signal, by = self.slopes(self.constrain(z, frame), inputs)
        if self.has_slopes:
            columns = [by[p.name] * p.slope(z[..., i]).unsqueeze(-1) for i, p in enumerate(self.tissue)]
        else:
            table = torch.stack([by[p.name] for p in self.tissue], -1)
            columns = list((table @ self._stretch(z[..., : self.n_tissue])).unbind(-1))
        if self.direction is not None:
            assert frame is not None
            slopes = self.direction.slopes(self.by_direction(z[..., self.n_tissue :]), frame)
            for name, turning in self._turning(slopes, inputs).items():
                columns += [by[name] * turn for turn in turning.unbind(-2)]
        # each column by itself in memory, as all that follows goes along the measurements
        return signal, torch.stack(columns, -2).mT

    def _turning(self, slopes: Tensor, inputs: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Derivatives ``(..., 2, M)`` of each direction's cosines by its coordinates, of slopes ``(..., 2, 3)``."""
        one = len(self.directions) == 1
        found = along(slopes, self.acquisition_of(inputs).bvec, not one)
        return {p.name: found if one else found[..., k, :, :] for k, p in enumerate(self.directions)}

    def _stretch(self, z: Tensor) -> Tensor:
        """Derivatives ``(..., P, P)`` of parameters by latents ``(..., P)`` where bounds depend on one another."""
        # by differences in float64, for all latents at once: exact to 1e-8, and no signal is simulated
        step = _STEP * torch.eye(self.n_tissue).to(z.double())
        step = step.reshape(-1, *[1] * (z.dim() - 1), self.n_tissue)
        ends = [self.constrain_tissue(z.double() + sign * step) for sign in (1, -1)]
        up, down = (torch.stack([theta[p.name] for p in self.tissue], -1) for theta in ends)
        return ((up - down) / (2 * _STEP)).movedim(0, -1).to(z)

    def _arguments(self, theta: Mapping[str, Tensor], inputs: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        columns = {p.name: theta[p.name].unsqueeze(-2 if p.is_direction else -1) for p in self.signal.parameters}
        given = {name: inputs[name].unsqueeze(-1) for name in self.signal.inputs if name in inputs} if inputs else {}
        return columns | given
