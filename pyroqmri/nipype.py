"""Interfaces for Nipype: `fit`, `apply` and `cohort` as nodes of a workflow.

Each runs the command line in a process of its own, by the Python that the workflow runs by. Needs the extra
``nipype``. Source: Gorgolewski et al. 2011, doi:10.3389/fninf.2011.00013.
"""

import sys
from pathlib import Path
from typing import Any

try:
    from nipype.interfaces.base import (  # pyright: ignore[reportMissingImports]
        CommandLine,
        CommandLineInputSpec,
        Directory,
        File,
        InputMultiObject,
        OutputMultiObject,
        Str,
        TraitedSpec,
        traits,
    )
except ImportError as error:
    raise ImportError("pyroqmri.nipype needs Nipype; install it with: pip install 'pyroqmri[nipype]'") from error

__all__ = ["Apply", "Cohort", "Fit"]
_COMMAND = f"{sys.executable} -m pyroqmri"


class _ScanInputs(CommandLineInputSpec):
    """What `fit` and `apply` have in common."""

    mask = File(exists=True, argstr="--mask %s", desc="image of the voxels to map")
    bval = File(exists=True, argstr="--bval %s", desc="b-values, where they are not beside the image")
    bvec = File(exists=True, argstr="--bvec %s", desc="directions, likewise")
    sigma = Str(argstr="--sigma %s", desc="noise level: a number, a NIfTI map or a word of the command")
    device = Str("auto", usedefault=True, argstr="--device %s", desc="auto, cpu or cuda")
    overwrite = traits.Bool(argstr="--overwrite", desc="replace a folder that pyroqmri wrote")
    out_dir = Str("maps", usedefault=True, argstr="--out %s", desc="folder to write, below that of the node")


class FitInputs(_ScanInputs):
    """Inputs of :class:`Fit`; any other option of `pyroqmri fit` goes into ``args``."""

    in_file = File(exists=True, mandatory=True, position=0, argstr="%s", desc="4-D image")
    signal = Str(mandatory=True, argstr="--signal %s", desc="physics")
    recipe = Str(mandatory=True, argstr="--recipe %s", desc="estimator")
    likelihood = Str(argstr="--likelihood %s", desc="gaussian, rician or ncchi")
    s0 = Str(argstr="--s0 %s", desc="measured, inferred or a number")
    seed = traits.Int(argstr="--seed %d", desc="of the training")
    settings = InputMultiObject(Str, argstr="--set %s...", desc="entries of the recipe, TABLE.KEY=VALUE")


class ApplyInputs(_ScanInputs):
    """Inputs of :class:`Apply`."""

    fit_dir = Directory(exists=True, mandatory=True, position=0, argstr="%s", desc="folder of a fit")
    in_file = File(exists=True, mandatory=True, position=1, argstr="%s", desc="4-D image")


class MapOutputs(TraitedSpec):
    """What `fit` and `apply` write."""

    out_dir = Directory(exists=True, desc="the folder")
    fit_dir = Directory(exists=True, desc="the fit, for `Apply`")
    means = OutputMultiObject(File(exists=True), desc="map of each parameter")
    sds = OutputMultiObject(File(exists=True), desc="map of each parameter's uncertainty")
    status = File(exists=True, desc="whether each voxel could be fitted, and if not why")
    report = File(exists=True, desc="page")


class _Maps(CommandLine):
    """A command that writes a folder of maps."""

    output_spec = MapOutputs

    def _list_outputs(self) -> dict[str, Any]:
        out = Path(self.inputs.out_dir).resolve()
        names = {"means": "*_stat-mean_*.nii.gz", "sds": "*_stat-sd_*.nii.gz"}
        found: dict[str, Any] = {name: sorted(map(str, out.glob(glob))) for name, glob in names.items()}
        status = str(next(out.glob("*_desc-status_mask.nii.gz")))
        return {
            "out_dir": str(out), "fit_dir": str(out / "fit"), **found, "status": status,
            "report": str(out / "report.html"),
        }  # fmt: skip


class Fit(_Maps):
    """`pyroqmri fit`: trains on an image and maps it.

    Examples
    --------
    >>> from pyroqmri.nipype import Fit
    >>> node = Fit(in_file="sub-01_dwi.nii.gz", signal="msdki", recipe="hierarchical")  # doctest: +SKIP
    >>> node.run().outputs.means  # doctest: +SKIP
    """

    _cmd = f"{_COMMAND} fit --quiet"
    input_spec = FitInputs


class Apply(_Maps):
    """`pyroqmri apply`: maps an image with a fit that was saved; nothing is trained."""

    _cmd = f"{_COMMAND} apply --quiet"
    input_spec = ApplyInputs


class CohortInputs(CommandLineInputSpec):
    """Inputs of :class:`Cohort`; any other option of `pyroqmri cohort` goes into ``args``."""

    bids_dir = Directory(exists=True, mandatory=True, position=0, argstr="%s", desc="BIDS data set")
    out_dir = Str(mandatory=True, position=1, argstr="%s", desc="its derivatives")
    level = traits.Enum("participant", "group", mandatory=True, position=2, argstr="%s", desc="of the BIDS App")
    signal = Str(argstr="--signal %s", desc="physics")
    recipe = Str(argstr="--recipe %s", desc="estimator")
    fit_dir = Directory(exists=True, argstr="--fit %s", desc="fit to map with, in place of signal and recipe")
    participants = InputMultiObject(Str, argstr="--participant-label %s...", desc="labels; all when left out")
    n_workers = traits.Int(argstr="--n-workers %d", desc="processes")


class CohortOutputs(TraitedSpec):
    """What `cohort` writes."""

    out_dir = Directory(exists=True, desc="the folder, a BIDS derivative")
    status_table = File(exists=True, desc="every image: done, skipped, failed, and why")


class Cohort(CommandLine):
    """`pyroqmri cohort`: many subjects. A node fails where an image does, as the command's exit code is 1 then."""

    _cmd = f"{_COMMAND} cohort --quiet"
    input_spec = CohortInputs
    output_spec = CohortOutputs

    def _list_outputs(self) -> dict[str, Any]:
        out = Path(self.inputs.out_dir).resolve()
        return {"out_dir": str(out), "status_table": str(out / "participants_status.tsv")}
