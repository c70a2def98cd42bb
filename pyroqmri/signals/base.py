"""What every signal declares."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pyroqmri.acquisition import NEGLIGIBLE_B, Acquisition
from pyroqmri.parameter import SCAN_UNIT, Box, Direction, Parameter

Tissue = Mapping[str, tuple[float, float]]  # mean and sd of each scalar parameter
Expected = tuple[float, float, float]  # of a population: its mean, the mean's uncertainty, sd between voxels


@dataclass(frozen=True)
class LogLinear:
    """How the logarithm of a signal is linear: log S/S0 = design @ coefficients.

    Parameters
    ----------
    design
        Design matrix ``(M, C)`` of an acquisition, without the column of log S0.
    theta
        Physical parameters, each ``(N,)``, of coefficients ``(C, N)``.
    predicted
        Weigh by the squared signal that unweighted least squares predicts; else by the squared measurement.
    final
        Whether it is the estimate where the noise is Gaussian; else a search starts from it.
    """

    design: Callable[[Acquisition], Tensor]
    theta: Callable[[Tensor], dict[str, Tensor]]
    predicted: bool
    final: bool = True


class SignalModel(ABC):
    """Closed-form MR physics: the signal of a tissue with given parameters.

    A subclass states its equation in its docstring, the acquisition settings it
    ``requires``, its table of ``parameters`` and per-voxel ``inputs``, and writes
    ``signal``. Everything else (transforms, network widths, site names, file
    names, axis labels, bounds of the fits) comes from the table.

    A signal may also have a ``default_protocol``, a common scan at 3 T that is
    simulated when no protocol is given, and ``typical_tissue``: by tissue (white
    matter, grey matter, csf), the mean and sd of each scalar parameter that is not ``held``,
    in healthy adults. Without them `simulate` needs a protocol and draws uniform parameters. ``expected`` states what
    is expected of a scan's population in the parameters' units, which is the hyperprior of `hierarchical`: of each
    parameter the mean over the voxels, how far it may be off, and the sd between voxels, within a factor of two.

    Raises
    ------
    TypeError
        At import, when the table does not match the arguments of ``signal``, the
        default protocol lacks a required setting, or a tissue a parameter.
    """

    requires: ClassVar[tuple[str, ...]]
    parameters: ClassVar[tuple[Parameter | Direction, ...]]
    optional: ClassVar[tuple[str, ...]] = ()  # settings that it uses where they are known
    inputs: ClassVar[tuple[str, ...]] = ()  # per-voxel inputs; those with a default in ``signal`` may be left out
    signed: ClassVar[bool] = False  # describes data that keep their sign, which no magnitude does
    powder_average: ClassVar[bool] = False  # describes the mean over gradient directions
    negligible_b: ClassVar[float] = NEGLIGIBLE_B  # ms/um2; a measurement at a larger b is not S0 itself
    suffix: ClassVar[str] = "dwimap"  # BIDS suffix of its maps
    derived_parameters: ClassVar[tuple[Parameter | Direction, ...]] = ()
    source: ClassVar[str] = ""
    reach: ClassVar[float | None] = None  # b in ms/um2 beyond which it does not describe tissue's decay
    default_protocol: ClassVar[Acquisition | None] = None
    typical_tissue: ClassVar[Mapping[str, Tissue]] = {}
    expected: ClassVar[Mapping[str, Expected]] = {}  # by parameter, before any voxel is measured
    expected_source: ClassVar[str] = ""
    n_modes: ClassVar[int] = 1  # regions of the first parameter, each of which may have a mode of its own
    # parameters that no scan of this kind is meant to determine: mean and sd of their population, which is not learned
    nuisance: ClassVar[Mapping[str, tuple[float, float]]] = {}
    # falling fractions of parts that may be absent; their number is enumerated
    countable: ClassVar[tuple[str, ...]] = ()
    held: ClassVar[Mapping[str, float]] = {}  # parameters with a usual value, held at it unless a range is asked for
    log_linear: ClassVar[LogLinear | None] = None  # where the logarithm is linear, which fits in closed form

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        table = [p.name for p in cls.parameters] + list(cls.inputs)
        arguments = list(inspect.signature(cls.signal).parameters)[1:]
        if arguments != table:
            raise TypeError(f"{cls.__name__}: parameter table {table} does not match signal{tuple(arguments)}")
        settings = {} if cls.default_protocol is None else cls.default_protocol.settings()
        if settings and not set(cls.requires) <= set(settings):
            raise TypeError(f"{cls.__name__}: default_protocol has {list(settings)}, not all of {list(cls.requires)}")
        scalars = [p.name for p in cls.parameters if isinstance(p, Parameter) and p.name not in cls.held]
        for name, tissue in cls.typical_tissue.items():
            if set(tissue) != set(scalars):
                raise TypeError(f"{cls.__name__}: typical_tissue of {name} is of {list(tissue)}, not of {scalars}")
        if cls.expected and not (set(cls.expected) <= set(table) and cls.expected_source):
            raise TypeError(f"{cls.__name__}: expected is of {list(cls.expected)} and needs an expected_source")

    @staticmethod
    @abstractmethod
    def signal(acq: Acquisition, *args: Tensor, **theta: Tensor) -> Tensor:
        """Signal over S0, ``(..., M)``, of parameters that come as ``(..., 1)``, directions as ``(..., 1, 3)``."""

    @staticmethod
    def slopes(acq: Acquisition, *args: Tensor, **theta: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Signal and its derivatives by the parameters of the table, each ``(..., M)``; by a direction, by its cosine.

        A formula makes fits fast; signals without one are left to differences.
        """
        raise NotImplementedError

    @classmethod
    def box(cls, name: str, theta: Mapping[str, Tensor]) -> Box | None:
        """Bounds of a parameter, each ``(...)``, given those before it in the table; None is the table's own.

        For parameters whose bounds depend on one another, such as the elements of a positive definite tensor.
        """
        return None

    @classmethod
    def measures_s0(cls) -> bool:
        """Whether some measurements can be S0 itself; relaxation leaves none, so there S0 is inferred."""
        return set(cls.requires) <= {"bval", "bvec", "offset"}

    @classmethod
    def has_s0(cls, acq: Acquisition) -> bool:
        """Whether S0 multiplies the signal; where its parameters have the scan's units, or a ratio is measured, not."""
        return all(p.unit != SCAN_UNIT for p in cls.parameters)

    @classmethod
    def amplitude(cls, acq: Acquisition) -> float:
        """The largest measurement over S0 in common tissue, where it is far from 1: it scales an inferred S0."""
        return 1.0

    @classmethod
    def default_input(cls, name: str) -> float | None:
        """What a per-voxel input is taken for where it is not given; None where it has to be."""
        default = inspect.signature(cls.signal).parameters[name].default
        return None if default is inspect.Parameter.empty else float(default)

    @classmethod
    def common_input(cls, name: str) -> float:
        """A value of a per-voxel input that a protocol may be judged at: its default, or 1 where it has none."""
        default = cls.default_input(name)
        return 1.0 if default is None else default

    @classmethod
    def derived(cls, theta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Quantities of interest that follow from the parameters, each ``(...)``; named in ``derived_parameters``.

        A signal without a free direction may derive one, ``(..., 3)``: its sign means nothing.
        """
        return {}

    @classmethod
    def first_guess(cls, acq: Acquisition, y: Tensor) -> dict[str, Tensor]:
        """Parameters and S0, each ``(N,)``, that come near measurements ``(N, M)`` and that searches start from.

        Where several minima compete a formula finds the right one; signals without one start from points of the box.
        """
        return {}

    @classmethod
    def guesses(cls, acq: Acquisition, y: Tensor) -> list[dict[str, Tensor]]:
        """As :meth:`first_guess`, with one part, two ... of those that are ``countable``; the others are small."""
        raise NotImplementedError(f"{cls.__name__} has no parts to count")

    @classmethod
    def missing_axes(cls, acq: Acquisition, theta: Mapping[str, Tensor], residual: Tensor, tangent: Tensor) -> Tensor:
        """Axes ``(N, J, 3)`` of one more part, by the residual ``(N, M)`` of parameters ``theta`` without it.

        ``tangent`` ``(N, M, P)`` has orthonormal columns that span the slopes of the parameters that are there.
        """
        raise NotImplementedError(f"{cls.__name__} has no parts to count")

    @classmethod
    def widening(cls, acq: Acquisition, theta: Mapping[str, Tensor]) -> Tensor | None:
        """What a little variance of the diffusivity within a voxel would add to S/S0 ``(N, M)``, which it leaves out.

        In units of the squared sd over the mean; None for signals that have such a variance, or no use for it.
        """
        return None

    @classmethod
    def initial_axis(cls, acq: Acquisition, y: Tensor) -> Tensor:
        """A first guess of each voxel's direction ``(N, 3)``, or directions ``(N, K, 3)``, of signals with any."""
        raise NotImplementedError(f"{cls.__name__} has no direction")
