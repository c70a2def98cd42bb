"""A protocol in files: read where it belongs to no image, and written beside one."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri import __version__
from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io import read_gradients, read_settings
from pyroqmri.io.mp2rage import mp2rage_entries
from pyroqmri.io.settings import BIDS_KEYS
from pyroqmri.io.text import read_vector
from pyroqmri.maps import write_bytes, write_json

PathLike = str | Path


@dataclass(frozen=True, kw_only=True)
class ProtocolFiles:
    """The files of a protocol, a field a setting; the one place, beside the options of ``cli/files.py``, to list them.

    A setting that is None was not given. ``averages`` may be a number in place of a file.
    """

    bval: PathLike | None = None
    bvec: PathLike | None = None
    te: PathLike | None = None
    ti: PathLike | None = None
    tr: PathLike | None = None
    flip: PathLike | None = None
    offset: PathLike | None = None
    mt: PathLike | None = None
    averages: PathLike | float | None = None

    @property
    def settings(self) -> dict[str, PathLike]:
        """The files of settings that were given, by setting; averages are in :meth:`averaged`."""
        files = {field.name: getattr(self, field.name) for field in fields(ProtocolFiles) if field.name != "averages"}
        return {name: path for name, path in files.items() if path is not None}

    def averaged(self, acquisition: Acquisition) -> Acquisition:
        """The settings with ``averages``, a number or a file with one for all or one per volume."""
        if self.averages is None or isinstance(self.averages, int | float):
            return acquisition.averaged(self.averages)
        return acquisition.averaged(read_vector(self.averages, "averages", len(acquisition)))

    def acquisition(self) -> Acquisition:
        """The settings in files that belong to no image; one number stands for all measurements.

        Raises
        ------
        InputError
            When no file is given, or one is wrong.
        """
        given = self.settings
        if not given:
            raise InputError("no protocol: give --bval, or --te, --ti, --flip for relaxometry, or the folder of a fit")
        bval, bvec = given.pop("bval", None), given.pop("bvec", None)
        settings: dict[str, Any] = {}
        said: list[str] = []
        if bval is not None:
            gradients = read_gradients(bval, bvec)
            settings |= gradients.acquisition.settings()
            said = gradients.warnings
        elif bvec is not None:
            raise InputError(f"bvec file {bvec} has directions without b-values; give those with --bval")
        # no names: what happens to lie in the working directory belongs to no protocol
        times = read_settings("no image", names=(), **given)  # type: ignore[arg-type]
        settings |= times.values
        for warning in (*said, *times.warnings):
            warnings.warn(warning, stacklevel=2)
        tensors = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in settings.items()}
        longest = max(map(len, tensors.values()))
        whole = {k: v.expand(longest, *v.shape[1:]) if len(v) == 1 else v for k, v in tensors.items()}
        return self.averaged(Acquisition(**whole))


def write_protocol(image: Path, acquisition: Acquisition, extra: Mapping[str, Any]) -> None:
    """Write the settings under the names that are found beside ``image``: ``.bval``, ``.bvec`` and the BIDS ``.json``.

    Averages have no file that is looked for, because reconstructions differ in what they average.

    Parameters
    ----------
    extra
        Further entries of the sidecar.

    Raises
    ------
    InputError
        When a file would be read back as another setting: units are recognised by size, and some are out of the usual.
    """
    stem = image.name.removesuffix(".nii.gz")
    settings = {name: value.double().numpy() for name, value in acquisition.settings().items()}
    for name in ("bval", "bvec"):
        if name in settings:
            rows = 1000 * settings[name][None] if name == "bval" else settings[name].T
            text = "".join(" ".join(f"{x:.7g}" for x in row) + "\n" for row in rows)
            write_bytes(image.with_name(f"{stem}.{name}"), text.encode())
    if acquisition.readout is not None:
        generated = {"GeneratedBy": f"pyroqmri {__version__}"}
        write_json(image.with_name(f"{stem}.json"), {**generated, **extra, **mp2rage_entries(acquisition)})
        return
    table = {key: _bids(name, settings[name]) for name, key in BIDS_KEYS.items() if name in settings}
    # what this package wrote is read back as it is, whatever its size
    generated = {"GeneratedBy": f"pyroqmri {__version__}"}
    write_json(image.with_name(f"{stem}.json"), {**generated, **extra, **table})
    _check_read_back(image, stem, acquisition)


def _bids(name: str, values: np.ndarray) -> float | list[float]:
    """Seconds, degrees, ppm, or on and off, as BIDS has them; one number where all are equal."""
    if name == "mt":
        return [bool(x) for x in values]
    scaled = np.degrees(values) if name == "flip" else values if name == "offset" else values / 1000
    rounded = [float(f"{x:.7g}") for x in scaled]
    return rounded[0] if len(set(rounded)) == 1 else rounded


def _check_read_back(image: Path, stem: str, acquisition: Acquisition) -> None:
    n = len(acquisition)
    found: dict[str, Any] = {}
    if acquisition.bval is not None:
        bval, bvec = (image.with_name(f"{stem}.{name}") for name in ("bval", "bvec"))
        found = read_gradients(bval, bvec if bvec.is_file() else None, n_volumes=n).acquisition.settings()
    found |= read_settings(image, n_volumes=n).values
    for name, value in acquisition.settings().items():
        if name in ("averages", "echo_spacing"):
            continue
        back = torch.as_tensor(found[name], dtype=torch.float32)
        if not torch.allclose(back, value, rtol=1e-4, atol=1e-4):
            off = int((back - value).abs().reshape(n, -1).amax(1).argmax())
            raise InputError(
                f"{name} of the protocol is {value[off].tolist()} in volume {off} and would be read back as "
                f"{back[off].tolist()}; give values of a usual size"
            )
