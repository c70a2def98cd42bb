"""The official BIDS validator on the output folder of a cohort; it needs no network."""

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

VALIDATOR = Path(sysconfig.get_path("scripts")) / "bids-validator-deno"


def errors(folder: Path) -> set[str]:
    """Codes of the errors that the validator finds."""
    found = subprocess.run([VALIDATOR, folder, "--json"], capture_output=True, text=True, timeout=120, check=False)
    issues = json.loads(found.stdout)["issues"]["issues"]
    return {issue["code"] for issue in issues if issue["severity"] == "error"}


@pytest.mark.skipif(not VALIDATOR.exists(), reason="needs bids-validator-deno, which the extra test brings")
def test_the_derivative_is_accepted_and_a_stray_map_is_not(made, tmp_path):
    assert errors(made.folder / "out") == set()
    copy = shutil.copytree(made.folder / "out", tmp_path / "copy")
    mean = next(copy.glob("sub-01/dwi/*param-D_stat-mean_dwimap.nii.gz"))
    mean.rename(mean.with_name("sub-01_D.nii.gz"))
    assert errors(copy) == {"NOT_INCLUDED"}
