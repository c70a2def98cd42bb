"""Options that name files, and the one object in which a command is handed them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pyroqmri.cli.common import NumberOrWord, Setting, options, toml_value

if TYPE_CHECKING:
    from pyroqmri.commands.inputs import ScanFiles
    from pyroqmri.commands.protocol_files import ProtocolFiles

# an option for each field of ProtocolFiles
SETTINGS = {
    "bval": "b-values; s/mm2, ms/um2 and s/m2 are recognised.",
    "bvec": "Gradient directions, 3 x M or M x 3.",
    "te": "Echo times, one per volume.",
    "ti": "Inversion times, one per volume.",
    "tr": "Repetition times, one per volume.",
    "flip": "Flip angles, one per volume.",
    "offset": "Saturation offsets in ppm, or in Hz where a sidecar has the field; one per volume.",
    "mt": "1 where a magnetisation transfer pulse was on, else 0; one per volume.",
    "averages": "Magnitude images that each volume is the mean of: one number, or a file with one per volume.",
}
_NAMED = "pyroqmri.cli.files"
_OWN = ("weights", "grad_dev")


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Put what an option names beside the command's own arguments, which then need not list it."""
    context.meta.setdefault(_NAMED, {})[option.name] = value


def _file(name: str, doc: str) -> Any:
    number = name == "averages"  # or a file
    return click.option(
        f"--{name.replace('_', '-')}", name, type=NumberOrWord() if number else None,
        metavar="N|FILE" if number else "FILE", help=doc, expose_value=False, callback=_keep,
    )  # fmt: skip


protocol_options = options(*(_file(name, doc) for name, doc in SETTINGS.items()))


def _inputs(text: str, doc: str, parse: Callable[[str], Any]) -> Any:
    return click.option(
        "--input", "inputs", type=Setting(parse), multiple=True, metavar=text, expose_value=False, help=doc,
        callback=lambda context, option, value: _keep(context, option, dict(value)),
    )  # fmt: skip


scan_options = options(
    protocol_options,
    _file("json", "BIDS sidecar of the image."),
    _file("mask", "Voxels to use; without one, the mask beside the image, else one is made."),
    _inputs("NAME=FILE", "Map of a per-voxel input of the signal, such as B1; may be repeated.", str),
    _file("weights", "4-D image of each volume's weight in each voxel, 0 (leave out) to 1."),
    _file("grad_dev", "Deviation of the gradients in each voxel, nine volumes as of the HCP's grad_dev."),
    click.option("--drop-volumes", metavar="I,J-K,...", expose_value=False, callback=_keep,
                 help="Volumes to leave out, counted from 0; ranges such as 20-41 are allowed."),
    click.option("--drop-outliers", is_flag=True, expose_value=False, callback=_keep,
                 help="Leave out volumes whose residuals are unlike the others'."),
    click.option("--bmax", type=float, metavar="B", expose_value=False, callback=_keep,
                 help="Leave out volumes with b above B s/mm2."),
    click.option(
        "--resample", is_flag=True, expose_value=False, callback=_keep,
        help="Interpolate masks and maps that lie on another grid than the image; they are refused otherwise.",
    ),
)  # fmt: skip
simulated_inputs = _inputs(
    "NAME=FILE|X|[LOW,HIGH]",
    "Per-voxel input of the signal, such as B1: a map, one value, or uniform in a range; may be repeated.", toml_value,
)  # fmt: skip
simulated_own = options(
    _file("weights", "4-D image of each volume's weight in each voxel: 0 loses the signal, below 1 adds noise."),
    _file("grad_dev", "Deviation of the gradients in each voxel, nine volumes as of the HCP's grad_dev."),
)


def named_files() -> dict[str, Any]:
    """What the running command's file options name, by option and in the order of help; None where one is left out."""
    named = click.get_current_context().meta[_NAMED]
    return {name: named[name] for name in (*SETTINGS, *sorted(set(named) - set(SETTINGS)))}


def protocol_files() -> "ProtocolFiles":
    """The files of the running command's :data:`protocol_options`."""
    from pyroqmri.commands.protocol_files import ProtocolFiles

    named = named_files()
    return ProtocolFiles(**{name: named[name] for name in SETTINGS})


def input_values() -> dict[str, Any]:
    """What the running command's :data:`simulated_inputs` are."""
    return named_files()["inputs"]


def own_files() -> dict[str, str]:
    """What the running command's :data:`simulated_own` name, by option."""
    return {name: value for name, value in named_files().items() if name in _OWN and value is not None}


def scan_files(image: str) -> "ScanFiles":
    """An image with the files and the volumes to leave out of the running command's :data:`scan_options`."""
    named = named_files()
    volumes, outliers = named.pop("drop_volumes"), named.pop("drop_outliers")
    if volumes is not None and outliers:
        raise click.UsageError("give --drop-volumes or --drop-outliers, not both")
    from pyroqmri.commands.inputs import ScanFiles

    return ScanFiles(image, drop="outliers" if outliers else volumes, **named)
