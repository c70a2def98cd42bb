"""Declarations of how diffusion is encoded: signals of one gradient direction are for linear b-tensors alone."""

from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.acquisition import WEIGHTED_ABOVE
from pyroqmri.errors import InputError
from pyroqmri.files import read_text
from pyroqmri.io.names import inherited, stem
from pyroqmri.io.sidecars import read_sidecar
from pyroqmri.io.text import name_volumes

LINEAR = 1.0
_SHAPES = {"linear": 1.0, "lte": 1.0, "planar": -0.5, "pte": -0.5, "spherical": 0.0, "ste": 0.0}
_KEYS = {"bdelta", "btensor", "btens", "btensorshape", "btensorencoding", "bshape", "tensorvaluedencoding"}
_NAMES = ("bdelta", "b_delta", "btens", "btensor", "bshape")
_CLOSE = 0.05


def check_linear(image: str | Path, bval: np.ndarray) -> None:
    """Refuse a scan of planar or spherical b-tensors, by the files and sidecar entries that declare their shape.

    Parameters
    ----------
    bval
        b-values ``(M,)`` in ms/um2; without weighting a shape means nothing.

    Raises
    ------
    InputError
        When a weighted volume is not linear, or a declaration cannot be read.
    """
    for source, shapes in _declarations(image):
        if len(shapes) not in (1, len(bval)):
            raise InputError(f"{source} has {len(shapes)} entries and the image has {len(bval)} volumes")
        each = np.broadcast_to(shapes, bval.shape)
        other = ~(np.abs(each - LINEAR) <= _CLOSE) & (bval > WEIGHTED_ABOVE)
        if other.any():
            raise InputError(
                f"{source} declares b-tensors that are not linear (b_delta {each[other][0]:g}) for "
                f"{name_volumes(other)}, and the signals are for linear ones; give an image of the linear volumes alone"
            )


def _declarations(image: str | Path) -> list[tuple[str, np.ndarray]]:
    """Each declaration of shapes that applies to an image: where it stands, and b_delta ``(M,)`` or ``(1,)``."""
    folder, own = Path(image).parent, stem(image)
    names = [f"{own}{link}{name}{end}" for name in _NAMES for link in (".", "_") for end in ("", ".txt")]
    shared = [f"{name}{end}" for name in _NAMES for end in ("", ".txt")] + ["dwi.bdelta"]
    paths = [folder / name for name in (*names, *shared)]
    paths += [path for rank in inherited(image, ".bdelta") for path in rank]
    found = [
        (f"file {path}", _shapes(read_text(path, "b-tensor file").replace(",", " ").split(), path))
        for path in dict.fromkeys(paths)
        if path.is_file()
    ]
    sidecar = read_sidecar(image)
    for key, value in sidecar.entries.items():
        if key.lower().replace("_", "") in _KEYS:
            words = value if isinstance(value, list) else [value]
            found.append((f"{key} in {sidecar.files[key]}", _shapes(words, sidecar.files[key])))
    return found


def _shapes(words: list[Any], path: Path) -> np.ndarray:
    """b_delta of each entry: a number, or a word such as LTE or spherical."""
    values = []
    for word in words:
        try:
            values.append(_SHAPES[word.lower()] if str(word).lower() in _SHAPES else float(word))
        except (TypeError, ValueError):
            raise InputError(
                f"{path} declares the b-tensor {str(word)[:20]!r}; write b_delta: 1 linear, 0 spherical, -0.5 planar"
            ) from None
    if not values:
        raise InputError(f"{path} declares b-tensors and is empty; write b_delta of each volume, 1 where it is linear")
    return np.array(values)
