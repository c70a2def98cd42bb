"""The folder of a fit: recipe.toml, weights.safetensors and fit.json, written together and read only as a whole."""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pyroqmri.errors import InputError, brief
from pyroqmri.files import read_bytes, read_table
from pyroqmri.recipe import Recipe

FORMAT = 2  # of the folder; in the first only the weights had a checksum
RECIPE, WEIGHTS, RECORD = "recipe.toml", "weights.safetensors", "fit.json"
MAX_WEIGHTS, MAX_RECORD = 4 << 30, 256 << 20  # bytes; a guide with numbers for each voxel has the most
_SUM = "record_sha256"
_DTYPES = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
}
_AGAIN = "copy the folder again, or train again"
UNSEALED = (
    "the fit was written by an older pyroqmri, which kept no checksums of its recipe and its record: whether they were "
    "changed since is unknown"
)


class SavedFit(NamedTuple):
    """What a folder contains: the record of ``fit.json``, the recipe, the weights, and what to warn of."""

    folder: Path
    record: dict[str, Any]
    recipe: Recipe
    tensors: dict[str, Tensor]
    warnings: list[str]


def fit_files(record: Mapping[str, Any], recipe: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Content of each file of a fit by name, in the order of writing: the record, with all checksums, comes last."""
    weights = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    text = recipe.to_toml().encode()
    sealed = dict(record) | {"format": FORMAT, "recipe_sha256": _sha(text), "weights_sha256": _sha(weights)}
    return {RECIPE: text, WEIGHTS: weights, RECORD: sealed_record(sealed)}


def sealed_record(record: Mapping[str, Any]) -> bytes:
    """Content of ``fit.json`` with the checksum of its own entries."""
    plain = json.loads(json.dumps(record, allow_nan=False))
    return json.dumps(plain | {_SUM: _record_sum(plain)}, indent=1, allow_nan=False).encode()


def fit_place(folder: str | Path) -> Path:
    """Where the fit's own files lie: the folder, or ``fit`` in the folder of maps."""
    inner = Path(folder) / "fit"
    try:
        return inner if (inner / RECORD).is_file() else Path(folder)
    except ValueError:  # NUL in the name, which reading reports
        return Path(folder)


def read_fit_folder(folder: str | Path, what: str = "fit") -> SavedFit:
    """A fit's files, after their format and their checksums were looked at.

    Parameters
    ----------
    folder
        Of the fit, or of the maps with the fit in it.
    what
        ``fit`` or ``denoiser``, for messages.

    Raises
    ------
    InputError
        When a file is missing, damaged, changed since it was written, or written by a newer pyroqmri.
    """
    place = fit_place(folder)
    try:
        record = read_table(place / RECORD, "record", MAX_RECORD)
        text = read_bytes(place / RECIPE, "recipe")
        weights = read_bytes(place / WEIGHTS, "weights", MAX_WEIGHTS)
    except InputError as error:
        raise InputError(f"{folder} contains no readable {what}: {error}") from error
    warnings = _check_whole(place, record, text, weights)
    recipe = Recipe.of(parse_toml(text, place / RECIPE), place / RECIPE)
    return SavedFit(place, record, recipe, _tensors(weights, place / WEIGHTS), warnings)


@contextmanager
def refuse_weights(folder: Path) -> Iterator[None]:
    """Weights that do not go into the parts of the recipe are an InputError."""
    try:
        yield
    except (RuntimeError, KeyError) as error:
        said = " ".join(str(error).split())
        raise InputError(
            f"{folder / WEIGHTS} has other weights than the parts of {RECIPE} need ({said[:200]}); give the classes it "
            "was trained with, or train again"
        ) from error


def parse_toml(content: bytes, path: Any) -> dict[str, Any]:
    """The tables of a recipe's text.

    Raises
    ------
    InputError
        When it is no TOML, or nested too deeply.
    """
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError as error:
        raise InputError(f"recipe {path} is nested too deeply to be read; correct it") from error
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise InputError(f"recipe {path} cannot be read: {error}; correct it") from error


def _check_whole(place: Path, record: dict[str, Any], recipe: bytes, weights: bytes) -> list[str]:
    """Refuse what was not written together; what to warn of."""
    written = record.get("format", 1)
    if isinstance(written, bool) or not isinstance(written, int) or written < 1:
        raise InputError(f"{place / RECORD} has the format {brief(written)}, which no pyroqmri wrote; {_AGAIN}")
    if written > FORMAT:
        by = brief(record.get("pyroqmri", "unknown"))
        raise InputError(
            f"{place} was written by a newer pyroqmri (version {by}, format {written}; this one reads up to "
            f"{FORMAT}); update pyroqmri"
        )
    sums = {"weights_sha256": (WEIGHTS, weights)} | ({"recipe_sha256": (RECIPE, recipe)} if written > 1 else {})
    for key, (name, content) in sums.items():
        if _sha(content) != record.get(key):
            raise InputError(
                f"{place / name} is damaged: its checksum is not the one in {RECORD}, written with it; {_AGAIN}"
            )
    if written > 1 and _record_sum(record) != record.get(_SUM):
        raise InputError(f"{place / RECORD} is damaged: it was changed after it was written; {_AGAIN}")
    return [] if written > 1 else [UNSEALED]


def _tensors(weights: bytes, path: Path) -> dict[str, Tensor]:
    try:
        tensors = load(weights)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: it is no safetensors file ({error}); {_AGAIN}") from error
    for name, value in tensors.items():
        if value.dtype not in _DTYPES or bool(torch.isnan(value).any()):
            raise InputError(f"{path} has NaN, or no numbers, in {name}, which no training leaves; {_AGAIN}")
    return tensors


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record_sum(record: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in record.items() if key != _SUM}
    return _sha(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())
