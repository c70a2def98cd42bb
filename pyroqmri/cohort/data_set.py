"""The output folder of a cohort as a BIDS derivative, and the call that it belongs to."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroqmri import __version__
from pyroqmri.cohort.record import STATE
from pyroqmri.commands.folder_lock import locked
from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.maps import write_json
from pyroqmri.svi.checkpoint import difference
from pyroqmri.whole_files import write_bytes

CALL = "call.json"
DESCRIPTION = "dataset_description.json"
# BIDS has no entity for a signal, a parameter or a statistic yet; QSIRecon writes model- and param- as well
# a pattern with a slash at its end leaves the folder itself in
_README = """# pyroqmri parameter maps of a cohort

Posterior maps of each image, made by `pyroqmri cohort`. `participants_status.tsv` lists every image: done, skipped or
failed, and why; `logs` has what was read and assumed of each; `fit` is the fit that all were mapped with; `group` has
the tables over subjects. Files whose name has a `model-` are in `.bidsignore`: BIDS has no names for them yet.
"""
_IGNORED = "*_model-*\n/.cohort\n/fit\n/logs\n/group\n/participants_status.tsv\n"


def open_data_set(out: Path, bids_dir: Path) -> None:
    """Make the folder a derived data set, or see that it is one of ours.

    Raises
    ------
    InputError
        When it contains something else, or is the data set itself.
    """
    if out.resolve() == bids_dir.resolve():
        raise InputError(f"the output folder {out} is the data set itself; give another, such as derivatives/pyroqmri")
    if out.is_dir() and any(out.iterdir()) and not (out / STATE).is_dir():
        raise InputError(f"the output folder {out} contains files of something else; give a new or empty one")
    try:
        (out / STATE).mkdir(parents=True, exist_ok=True)
        write_json(out / DESCRIPTION, _description(bids_dir))
        write_bytes(out / ".bidsignore", _IGNORED.encode())
        write_bytes(out / "README.md", _README.encode())
    except OSError as error:
        raise InputError(f"the output folder {out} cannot be written ({error.strerror}); give another") from error


def _description(bids_dir: Path) -> dict[str, Any]:
    return {
        "Name": "pyroqmri parameter maps of a cohort",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "pyroqmri", "Version": __version__}],
        "SourceDatasets": [{"URL": bids_dir.resolve().as_uri()}],
    }


@contextmanager
def only_run(out: Path, shared: bool) -> Iterator[None]:
    """Refuse a second run on the same folder; runs of single participants with a given fit may be ``shared``."""
    if shared:
        yield
        return
    with locked(out / STATE / "run.lock", out):
        yield


def same_call(out: Path, call: Mapping[str, Any], overwrite: bool) -> None:
    """Remember what the folder is for, and refuse another call of it.

    Raises
    ------
    InputError
        When the folder belongs to a call that differs, unless it is to be replaced; names the first difference.
    """
    path, now = out / STATE / CALL, json.loads(json.dumps(call, default=str))
    if path.exists() and not overwrite:
        before = read_table(path, "record of the call")
        found = difference(before, now)
        if found:
            raise InputError(
                f"{out} was made by another call, {found}; give another output folder, or map everything again with "
                "--overwrite"
            )
        return
    write_bytes(path, json.dumps(now, indent=1).encode())
