"""What every signal declares."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Box, Direction, Parameter


class SignalModel(ABC):
    """Closed-form MR physics: the signal of a tissue with given parameters.

    A subclass states its equation in its docstring, the acquisition settings it
    ``requires``, its table of ``parameters`` and per-voxel ``inputs``, and writes
    ``signal``. Everything else (transforms, network widths, site names, file
    names, axis labels, bounds of the fits) comes from the table.

    Raises
    ------
    TypeError
        At import, when the table does not match the arguments of ``signal``.
    """

    requires: ClassVar[tuple[str, ...]]
    parameters: ClassVar[tuple[Parameter | Direction, ...]]
    optional: ClassVar[tuple[str, ...]] = ()  # settings that it uses where they are known
    inputs: ClassVar[tuple[str, ...]] = ()  # per-voxel inputs; those with a default in ``signal`` may be left out
    signed: ClassVar[bool] = False  # describes data that keep their sign, which no magnitude does
    powder_average: ClassVar[bool] = False  # describes the mean over gradient directions
    suffix: ClassVar[str] = "dwimap"  # BIDS suffix of its maps
    derived_parameters: ClassVar[tuple[Parameter | Direction, ...]] = ()
    source: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        table = [p.name for p in cls.parameters] + list(cls.inputs)
        arguments = list(inspect.signature(cls.signal).parameters)[1:]
        if arguments != table:
            raise TypeError(f"{cls.__name__}: parameter table {table} does not match signal{tuple(arguments)}")

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
    def amplitude(cls, acq: Acquisition) -> float:
        """The largest measurement over S0 in common tissue, where it is far from 1: it scales an inferred S0."""
        return 1.0

    @classmethod
    def default_input(cls, name: str) -> float | None:
        """What a per-voxel input is taken for where it is not given; None where it has to be."""
        default = inspect.signature(cls.signal).parameters[name].default
        return None if default is inspect.Parameter.empty else float(default)

    @classmethod
    def derived(cls, theta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Quantities of interest that follow from the parameters, each ``(...)``; named in ``derived_parameters``.

        A signal without a free direction may derive one, ``(..., 3)``: its sign means nothing.
        """
        return {}

    @classmethod
    def initial_axis(cls, acq: Acquisition, y: Tensor) -> Tensor:
        """A first guess of each voxel's direction ``(N, 3)``; only for signals with one."""
        raise NotImplementedError(f"{cls.__name__} has no direction")
