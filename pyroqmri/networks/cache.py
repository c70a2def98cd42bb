"""Results that take minutes, kept in the user's cache folder by what they were made from."""

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyroqmri.datasets import cache_folder

_VERSION = 2  # of what is kept; a change of the method that makes it has to raise it


def content_key(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Checksum of plain settings and of every byte of ``tensors``."""
    digest = hashlib.sha256(json.dumps([_VERSION, settings], sort_keys=True, default=str).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def kept(kind: str, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``make`` returns: read from the cache where it holds it, else made and kept.

    A file whose content is not what was kept under the key is made anew, with a warning. A cache that cannot be read
    or written only costs the time.
    """
    path = cache_folder() / kind / f"{key}.safetensors"
    try:
        return _read(path, key)
    except (OSError, SafetensorError):  # none yet, or cut short
        pass
    except ValueError as error:
        warnings.warn(f"{path} is not what was kept there ({error}); it is made anew", stacklevel=2)
    found = {name: value.detach().cpu().contiguous() for name, value in make().items()}
    with contextlib.suppress(OSError):
        _write(path, key, found)
    return found


def _read(path: Path, key: str) -> dict[str, Tensor]:
    if path.exists() and not path.is_file():
        raise ValueError("no regular file")
    with safe_open(path, "pt") as file:
        meta = file.metadata() or {}
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if meta.get("sum") != content_key({"key": key}, found):
        raise ValueError("its checksum is not that of its content")
    return found


def _write(path: Path, key: str, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
    os.close(handle)
    try:
        save_file(tensors, partial, {"sum": content_key({"key": key}, tensors)})
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
