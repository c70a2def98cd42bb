"""`pyroqmri simulate`."""

from typing import Any

import click

from pyroqmri.cli.common import (
    Setting,
    debug_option,
    example,
    held_options,
    out_option,
    overwrite_option,
    quiet_option,
    say_loading,
    seed_option,
    toml_value,
)
from pyroqmri.cli.files import (
    input_values,
    own_files,
    protocol_files,
    protocol_options,
    simulated_inputs,
    simulated_own,
)


@click.command(**example("pyroqmri simulate --signal msdki --phantom brain --snr 25 --out out/sim"))
@click.option("--signal", metavar="S", required=True, help="Physics; see `pyroqmri list signals`.")
@click.option("--phantom", metavar="brain|clusters|uniform", required=True, help="What is measured.")
@click.option("--snr", type=float, metavar="X", help="S0 over sigma; needed unless --noise is none.")
@protocol_options
@simulated_inputs
@simulated_own
@held_options
@click.option("--shape", type=int, nargs=3, default=(32, 32, 8), show_default=True, metavar="X Y Z", help="Voxels.")
@click.option("--noise", metavar="rician|gaussian|ncchi|none",
              help="[default: rician; gaussian for a signal that keeps its sign]")  # fmt: skip
@click.option("--coils", type=float, default=1, metavar="N", show_default=True,
              help="Coils whose sum of squares the magnitudes are roots of, for --noise ncchi.")  # fmt: skip
@click.option("--range", "ranges", type=Setting(toml_value), multiple=True, metavar="NAME=[LOW,HIGH]",
              help="Narrow a parameter of phantom uniform; may be repeated.")  # fmt: skip
@seed_option
@out_option
@overwrite_option
@quiet_option
@debug_option
def simulate(
    signal: str, phantom: str, snr: float | None, shape: Any, noise: str | None, coils: float, ranges: Any, fix: Any,
    tie: Any, seed: int, out: str, overwrite: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write a scan whose truth is known: image, protocol, mask and true maps, ready for `pyroqmri fit`.

    Without files of a protocol it is a common one for the signal.
    """
    say_loading(quiet)
    from pyroqmri.commands.simulate import IMAGE, simulate_files

    protocol = protocol_files()
    folder = simulate_files(
        signal, phantom, out=out, snr=snr, shape=shape, noise=noise, coils=coils, seed=seed, protocol=protocol,
        ranges=dict(ranges), inputs=input_values(), fixed=dict(fix), tied=dict(tie), overwrite=overwrite,
        **own_files(),
    )  # fmt: skip
    if not quiet and not protocol.settings:
        click.echo(f"note: no protocol was given, so it is the default one of {signal}", err=True)
    if not quiet and protocol.averages is not None:
        click.echo(f"note: fit it with --averages {protocol.averages}", err=True)
    for name in () if quiet else input_values():
        click.echo(f"note: fit it with --input {name}={folder / f'sub-sim_input-{name}.nii.gz'}", err=True)
    for name in () if quiet else own_files():
        click.echo(f"note: fit it with --{name.replace('_', '-')} {folder / f'sub-sim_{name}.nii.gz'}", err=True)
    click.echo(folder / IMAGE)
