"""Results that take minutes, kept in the user's cache folder by what they were made from."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyroqmri.datasets import cache_folder

_VERSION = 1  # of what is kept; a change of the method that makes it has to raise it


def content_key(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Checksum of plain settings and of every byte of ``tensors``."""
    digest = hashlib.sha256(json.dumps([_VERSION, settings], sort_keys=True, default=str).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def kept(kind: str, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``make`` returns: read from the cache where it holds it, else made and kept.

    A cache that cannot be read or written only costs the time.
    """
    path = cache_folder() / kind / f"{key}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        found = make()
    with contextlib.suppress(OSError):
        _write(path, found)
    return found


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
    os.close(handle)
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial)
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
