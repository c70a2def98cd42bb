"""Fit, apply and report in any order, each of them killed at any operation on a file: nothing is torn or lost."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pyroqmri.commands import apply_image, fit_image
from pyroqmri.commands import report as report_module
from pyroqmri.commands.manifest import is_finished
from pyroqmri.errors import InputError
from pyroqmri.whole_files import write_bytes
from tests.kills import killed_at
from tests.small_scan import SmallScan, write_scan

LATEST = 400  # operations on files; a whole fit has about 200
SHORT = {"training.steps": 4, "training.batch_size": 32, "training.checkpoint_every": 2}
SIGMAS = (10.0, 14.0)


def maps(folder: Path) -> dict[str, bytes]:
    """Maps and weights under their final names."""
    found = (path for path in folder.rglob("*") if path.name.endswith((".nii.gz", ".safetensors")))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if ".pyroqmri" not in str(path)}


class AnyOrder(RuleBasedStateMachine):
    """One folder of a fit and one of what it mapped, by either of two noise levels."""

    scan: SmallScan
    recipe: str
    reference: dict[tuple[str, float], dict[str, bytes]]

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.fitted, self.mapped = Path(self.place.name) / "fit", Path(self.place.name) / "maps"

    def teardown(self) -> None:
        self.place.cleanup()

    @rule(sigma=st.sampled_from(SIGMAS), resume=st.booleans(), at=st.integers(0, LATEST))
    def fit(self, sigma: float, resume: bool, at: int) -> None:
        """Train and map, in place of what is there; killed before operation ``at`` unless that is 0."""
        self._run(self.fitted, at, lambda: self.fit_into(self.fitted, sigma, resume))

    @precondition(lambda self: is_finished(self.fitted))
    @rule(at=st.integers(0, LATEST))
    def apply(self, at: int) -> None:
        """Map with the fit that is there."""
        self._run(self.mapped, at, lambda: self.apply_into(self.mapped, self.fitted))

    @precondition(lambda self: is_finished(self.fitted))
    @rule(at=st.integers(0, 5))
    def report(self, at: int) -> None:
        """Write the page again."""
        self._run(self.fitted, at, lambda: report_module.rebuild_report(self.fitted))

    def _run(self, folder: Path, at: int, work) -> None:
        before = maps(folder) if is_finished(folder) else None
        if at and killed_at(work, self.place.name, at):
            aside = folder.with_name(f".{folder.name}.old")
            there = maps(folder) if is_finished(folder) else maps(aside) if is_finished(aside) else None
            begun = folder.exists() and not is_finished(folder)  # moved in file by file: the next run goes on
            assert before is None or begun or there is not None, "the earlier result is lost"
        elif not at:
            work()

    @invariant()
    def a_finished_folder_is_one_result(self) -> None:
        for name, folder in (("fit", self.fitted), ("maps", self.mapped)):
            if is_finished(folder):
                assert maps(folder) in [self.reference[name, sigma] for sigma in SIGMAS]

    @classmethod
    def fit_into(cls, out: Path, sigma: float, resume: bool = False) -> None:
        """The fit of the small scan; where the checkpoint of another call is there, it is begun afresh."""
        options = {"signal": "msdki", "recipe": cls.recipe, "sigma": sigma, "overwrite": True}
        options["settings"] = {} if cls.recipe == "least_squares" else SHORT
        with contextlib.suppress(InputError):
            fit_image(cls.scan.files, out=out, resume=resume, predictive=False, **options)
            return
        fit_image(cls.scan.files, out=out, predictive=False, **options)

    @classmethod
    def apply_into(cls, out: Path, fit: Path) -> None:
        """The maps of the small scan."""
        apply_image(fit, cls.scan.files, out=out, overwrite=True, pages=False)


@pytest.fixture
def any_order(request, tmp_path, monkeypatch):
    """The machine, on a scan of 144 voxels and without pages, which take seconds."""
    from pyroqmri.commands import fit as fit_module

    honest = fit_module.write_results
    monkeypatch.setattr(fit_module, "write_results", lambda *a, **k: honest(*a, **{**k, "pages": False}))
    monkeypatch.setattr(report_module, "write_report", lambda folder, _: write_bytes(folder / "report.html", b"page"))
    AnyOrder.scan = write_scan(tmp_path / "in")
    AnyOrder.recipe, AnyOrder.reference = request.param, {}
    for sigma in SIGMAS:
        AnyOrder.fit_into(tmp_path / f"fit{sigma}", sigma)
        AnyOrder.apply_into(tmp_path / f"maps{sigma}", tmp_path / f"fit{sigma}")
        for name in ("fit", "maps"):
            AnyOrder.reference[name, sigma] = maps(tmp_path / f"{name}{sigma}")
    assert AnyOrder.reference["maps", SIGMAS[0]] != AnyOrder.reference["maps", SIGMAS[1]]
    return AnyOrder


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


MANY = pytest.param("hierarchical", 8, 8, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("any_order", "examples", "steps"), [("least_squares", 2, 6), MANY], indirect=["any_order"], ids=["few", "many"]
)
def test_whatever_the_order_and_the_kills_folders_are_whole(any_order, examples, steps):
    run_state_machine_as_test(
        any_order,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None,
            suppress_health_check=CHECKS, phases=[Phase.generate],
        ),
    )  # fmt: skip
