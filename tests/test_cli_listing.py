"""What `pyroqmri` and `pyroqmri list` print."""

import click
import pytest

from pyroqmri.cli import cli
from pyroqmri.signals import SIGNALS


def test_a_signal_is_listed_with_its_protocol_and_suffixes(run):
    code, out, _ = run("list", "signals", "--long", "t1_vfa", "noddi")
    assert code == 0
    assert "takes per voxel  --input B1=FILE" in out
    assert "flip 2 4 8 12 16 20 degrees" in out
    assert "b up to 3000 s/mm2" in out
    assert "D_par 1.7, D_iso 3" in out
    (line,) = [line for line in out.splitlines() if line.startswith("  T1 ")]
    assert line.split()[:6] == ["T1", "ms", "10", "to", "6000", "T1map"]
    assert "msdki" not in out
    code, _, err = run("list", "signals", "dtti")
    assert code == 2
    assert "there is no signal 'dtti'" in err


def test_every_signal_can_be_listed_in_full(run):
    code, out, _ = run("list", "signals", "--long")
    assert code == 0
    assert all(f"{name}: " in out for name in SIGNALS)


def test_the_command_alone_shows_every_command_in_a_section(run):
    code, out, err = run()
    assert code == 0
    assert err == ""
    assert all(f"\n  {name} " in out for name in cli.commands)
    assert out.index("Maps:") < out.index("  fit ") < out.index("Protocol and calibration:") < out.index("  check ")
    assert "..." not in out.split("Maps:")[1]
    assert "\n  pyroqmri check out/mine " in out


# options whose help says something else for a reason: another kind of file, another default, a fit in their place
OWN_WORDS = {"--out", "--overwrite", "--signal", "--recipe", "--fit", "--voxels", "--sigma", "--snr", "--s0", "--coils",
             "--averages", "--drop-volumes", "--input", "--set", "--weights", "--grad-dev"}  # fmt: skip


def commands(group=cli, before=""):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_an_option_of_one_name_is_one_option_in_every_command():
    known = {}
    for name, command in commands():
        for option in (p for p in command.params if isinstance(p, click.Option)):
            key = option.opts[0]
            assert option.help, f"{name} {key} has no help"
            assert option.help.endswith((".", "]")), f"{name} {key}"
            said = (option.help, option.metavar, option.default, option.is_flag, option.required)
            if key not in OWN_WORDS:
                assert known.setdefault(key, (name, said))[1] == said, f"{name} and {known[key][0]} differ in {key}"
    assert len(known) > 50


@pytest.mark.parametrize(("name", "command"), [one for one in commands() if " " not in one[0]], ids=str)
def test_the_help_of_a_command_has_sections_and_an_example(name, command):
    shown = command.get_help(click.Context(command, info_name=name))
    assert "Output:" in shown
    assert f"pyroqmri {name} " in shown.partition("Example:")[2]
    assert "INTEGER RANGE" not in shown


def test_an_option_stands_in_the_section_of_its_kind():
    found = {name: command.get_help(click.Context(command)) for name, command in commands()}
    assert found["compare"].index("--signal") < found["compare"].index("Files:")
    assert found["fit"].index("--resample") < found["fit"].index("Run:")
