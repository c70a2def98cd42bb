"""What a caller gives, as the package wants it."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError, brief
from pyroqmri.signals import SIGNALS, SignalModel

USUAL = 1e-33, 1e33  # of a scan's measurements; float32 has 1e-38 to 3e38
BEYOND = 1e6  # times the usual: no scanner has such a range
MOST_SEED = 2**63 - 1


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, and torch finds none here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def as_tensor(values: Any, what: str = "values") -> Tensor:
    """Real numbers as a tensor of torch's default dtype, float32 as a rule, without a copy where it can be.

    The mask of a masked array is kept: what is masked is NaN. Gradients are not followed.

    Parameters
    ----------
    values
        An array, a tensor, a list, or whatever numpy makes an array of (pandas, xarray).
    what
        What they are, for messages.

    Raises
    ------
    InputError
        When they are no real numbers: complex, text, dates, or rows of different lengths.
    """
    dtype = torch.get_default_dtype()
    if isinstance(values, Tensor):
        if values.is_complex():
            raise InputError(_complex(what))
        return (values.detach().to_dense() if values.layout != torch.strided else values.detach()).cpu().to(dtype)
    wide = np.float64 if dtype == torch.float64 else np.float32
    try:
        array = _array(values)
        mask = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
        array = np.asarray(array)
        if array.dtype.kind == "c":
            raise InputError(_complex(what))
        # numpy reads numbers out of text, which is as likely a name
        if array.dtype.kind not in "biufO" or any(isinstance(x, str | bytes) for x in _objects(array)):
            raise InputError(f"{what} must be numbers, got an array of {array.dtype}")
        with np.errstate(over="ignore", under="ignore"):  # beyond float32 is Inf, which has a status
            plain = np.array(array, wide, order="C") if _needs_copy(array, mask) else array.astype(wide, copy=False)
    except InputError:
        raise
    except Exception as error:  # objects that only look like arrays raise anything
        raise InputError(f"{what} must be numbers, one row per voxel, got {brief(values)} ({error})") from error
    if mask is not None and mask.any():
        plain[mask] = np.nan
    return torch.from_numpy(plain)


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "to_numpy") and hasattr(values, "iloc"):  # pandas, whose missing values numpy does not know
        return values.to_numpy(dtype=float, na_value=np.nan)
    if isinstance(values, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in values):
        return np.ma.stack(values)
    return np.asanyarray(values)


def _objects(array: np.ndarray) -> Any:
    return array.flat if array.dtype.kind == "O" else ()


def _needs_copy(array: np.ndarray, mask: np.ndarray | None) -> bool:
    """Whether torch cannot take the memory as it is, or it is to be changed."""
    uneven = any(stride < 0 or stride % array.itemsize for stride in array.strides)
    return uneven or not array.flags.writeable or (mask is not None and bool(mask.any()))


def _complex(what: str) -> str:
    return f"{what} must be real, got complex numbers; give their magnitude, or the real part once phase is corrected"


def as_measurements(y: Any, acquisition: Acquisition) -> Tensor:
    """Measurements ``(N, M)`` as :func:`as_tensor` makes them.

    What is a million times the usual bright value is no signal of any scan and becomes Inf, which has a status: the
    squares of one such value would outweigh all others.

    Raises
    ------
    InputError
        When ``acquisition`` is none, or ``y`` is not ``(N, M)`` numbers, is true and false, or is in units in which
        float32 has no room for it.
    """
    if not isinstance(acquisition, Acquisition):
        raise InputError(f"acquisition must be a pyroqmri.Acquisition, got {brief(type(acquisition).__name__)}")
    if getattr(y, "dtype", None) in (torch.bool, np.dtype(bool)):
        raise InputError("y is true and false, a mask; give the measurements")
    found = as_tensor(y, "measurements y")
    if found.dim() != 2 or found.shape[1] != len(acquisition):
        raise InputError(f"y must be (voxels, measurements) = (N, {len(acquisition)}), got {tuple(found.shape)}")
    sample = found[:: max(1, len(found) // 1000)].flatten()
    # every eleventh or so; all of them where those are zero
    some = _seen(sample[:: max(1, len(sample) // 10_000)])
    some = some if len(some) else _seen(sample)
    if not len(some):
        return found
    bright = float(torch.quantile(some[:: max(1, len(some) // 10_000)], 0.98))
    if not USUAL[0] <= bright <= USUAL[1]:
        raise InputError(
            f"the measurements reach {bright:.1g}, and {USUAL[0]:g} to {USUAL[1]:g} can be fitted; multiply them, "
            "sigma and S0 by one number"
        )
    low, high = torch.aminmax(found)
    if not (float(low) >= -BEYOND * bright and float(high) <= BEYOND * bright):  # or NaN are among them
        found = torch.where(found.abs() > BEYOND * bright, torch.inf, found)
    return found


def _seen(values: Tensor) -> Tensor:
    """Sizes of the values that are finite and not zero."""
    return values[values.isfinite() & (values != 0)].abs()


def as_level(sigma: Any, n: int) -> Tensor:
    """A noise level as a tensor: one number ``()``, or one per voxel ``(n,)``, NaN where it is not above zero.

    Raises
    ------
    InputError
        When it has another shape, or is finite and above zero nowhere.
    """
    if isinstance(sigma, bool):
        raise InputError(f"sigma must be one number or one per voxel ({n},), got {sigma}")
    level = as_tensor(sigma, "sigma")
    if level.dim() == 1 and len(level) != n:
        raise InputError(f"sigma has {len(level)} entries for {n} voxels; give one number or one per voxel")
    if level.dim() > 1:
        raise InputError(f"sigma must be one number or one per voxel ({n},), got shape {tuple(level.shape)}")
    known = (level > 0) & level.isfinite()
    if level.dim() == 0 and not known:
        raise InputError(f"sigma must be finite and above zero everywhere, got {float(level):g}")
    if level.dim() == 1 and len(level) and not known.any():
        raise InputError(f"sigma must be finite and above zero, and is not in any of the {len(level)} voxels")
    return torch.where(known, level, torch.nan)


def as_s0(s0: Any) -> str | float:
    """How S0 is known: a word, or a value that is finite and above zero.

    Raises
    ------
    InputError
        When it is neither.
    """
    if isinstance(s0, str) and s0 in ("measured", "inferred"):
        return s0
    if not isinstance(s0, str | bool):
        try:
            value = float(s0)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            value = 0.0
        if 0 < value < 1e37:
            return value
    raise InputError(f"s0 must be 'measured', 'inferred' or a value above zero, finite, got {brief(s0)}")


def as_seed(seed: Any) -> int:
    """A seed that torch and numpy take, a whole number from 0 to 2**63 - 1.

    Raises
    ------
    InputError
        When it is none.
    """
    try:
        value = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value <= MOST_SEED:
        raise InputError(f"seed must be a whole number from 0 to 2**63 - 1, got {brief(seed)}")
    return value


def as_signal(name: Any) -> type[SignalModel]:
    """The signal of a name.

    Raises
    ------
    InputError
        When there is none.
    """
    if not isinstance(name, str) or name not in SIGNALS:
        raise InputError(f"there is no signal {brief(name)}; there are {', '.join(SIGNALS)}")
    return SIGNALS[name]


def as_dict(given: Mapping[str, Any] | None, what: str = "what is given by name") -> dict[str, Any]:
    """A copy as a dict; nothing is an empty one.

    Raises
    ------
    InputError
        When it is no table.
    """
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"{what} must be a table of values by name, such as {{'K': 0.8}}, got {brief(given)}")
    return {} if given is None else dict(given)


def as_numbers(given: Mapping[str, Any] | None, what: str) -> dict[str, float]:
    """A number for each name; nothing is an empty dict.

    Raises
    ------
    InputError
        When it is no table, or of something else than numbers.
    """
    table = as_dict(given, what)
    try:
        return {name: float(np.asarray(value.detach() if isinstance(value, Tensor) else value, np.float64).item())
                for name, value in table.items()}  # fmt: skip
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{what} must have one number for each name, got {brief(given)}") from error


def as_inputs(inputs: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Per-voxel inputs as tensors."""
    return {name: as_tensor(value, f"input {name}") for name, value in as_dict(inputs, "inputs").items()}


def as_positions(voxels: Any, mask: Any, n: int) -> Tensor | None:
    """Where ``n`` voxels lie in the image ``(n, 3)``: as given, or those inside a mask ``(X, Y, Z)`` in C order.

    Raises
    ------
    InputError
        When both are given, or they are not those of ``n`` voxels.
    """
    if voxels is not None and mask is not None:
        raise InputError("voxels and mask both give the positions of the voxels; give one of them")
    if mask is not None:
        voxels = np.argwhere(as_tensor(mask, "mask").numpy() > 0)
    if voxels is None:
        return None
    found = np.ma.asanyarray(voxels.cpu() if isinstance(voxels, Tensor) else voxels)
    if found.shape != (n, 3) or found.dtype.kind not in "iu" or found.mask.any():
        raise InputError(
            f"voxels must be integer indices ({n}, 3), one row per voxel of y, or mask an image with {n} voxels "
            f"inside; got shape {found.shape} of {found.dtype}"
        )
    return torch.from_numpy(np.array(found, np.int64))


def as_covariates(covariates: Mapping[str, Any] | None, n: int) -> dict[str, Tensor]:
    """Covariates of ``n`` voxels as tensors, each ``(n,)``.

    Raises
    ------
    InputError
        When one has another length, or is not finite.
    """
    given = as_dict(covariates, "covariates")
    found = {name: as_tensor(value, f"covariate {name}") for name, value in given.items()}
    for name, value in found.items():
        if value.shape != (n,) or not bool(torch.isfinite(value).all()):
            raise InputError(f"covariate {name} must be {n} finite numbers, one per voxel, got {tuple(value.shape)}")
    return found
