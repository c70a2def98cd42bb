"""Options that name files, and the one object in which a command is handed them."""

from typing import TYPE_CHECKING, Any

import click

from pyroqmri.cli.common import Setting, options

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
}
_NAMED = "pyroqmri.cli.files"


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Put what an option names beside the command's own arguments, which then need not list it."""
    context.meta.setdefault(_NAMED, {})[option.name] = value


def _file(name: str, doc: str) -> Any:
    return click.option(f"--{name}", metavar="FILE", help=doc, expose_value=False, callback=_keep)


protocol_options = options(*(_file(name, doc) for name, doc in SETTINGS.items()))
scan_options = options(
    protocol_options,
    _file("json", "BIDS sidecar of the image."),
    _file("mask", "Voxels to use; without one a mask is made."),
)
input_option = click.option(
    "--input", "inputs", type=Setting(str), multiple=True, metavar="NAME=FILE", expose_value=False,
    callback=lambda context, option, value: _keep(context, option, dict(value)),
    help="Map of a per-voxel input of the signal, such as B1; may be repeated.",
)  # fmt: skip


def named_files() -> dict[str, Any]:
    """What the running command's file options name, by option and in the order of help; None where one is left out."""
    named = click.get_current_context().meta[_NAMED]
    return {name: named[name] for name in (*SETTINGS, *sorted(set(named) - set(SETTINGS)))}


def protocol_files() -> "ProtocolFiles":
    """The files of the running command's :data:`protocol_options`."""
    from pyroqmri.commands.protocol_files import ProtocolFiles

    return ProtocolFiles(**named_files())


def scan_files(image: str, drop: str | None = None) -> "ScanFiles":
    """An image with the files of the running command's :data:`scan_options` and :data:`input_option`."""
    from pyroqmri.commands.inputs import ScanFiles

    return ScanFiles(image, drop=drop, **named_files())
