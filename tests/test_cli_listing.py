"""What `pyroqmri` and `pyroqmri list` print."""

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
