"""What every answer has: the status that a fit adds to that of the data, and intervals made of quantiles."""

import pytest
import torch
from torch import Tensor

from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.status import AT_BOUND, FEW_MISFIT, FINE, MISFIT, NEGATIVE, NO_SIGNAL, NOT_FINITE
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior.estimates import Estimates, at_bound, with_findings
from pyroqmri.posterior.goodness_of_fit import GoodnessOfFit
from pyroqmri.signals import MSDKI, BoundSignal
from tests.helpers import shells

ACQ = shells(0, 6, 1.0, 2.0, bvec=False)


class Known(Estimates):
    """Estimates that are what a test says they are, each ``(N,)``."""

    def __init__(self, status: list[int], D: Tensor, ppc: Tensor, few: Tensor) -> None:
        n = len(status)
        voxels = Voxels(torch.ones(n, len(ACQ)), torch.ones(n, 1))
        batch = Batch(voxels, torch.arange(n), torch.tensor(status, dtype=torch.uint8), torch.ones(n))
        super().__init__(BoundSignal(MSDKI, ACQ), batch)
        self.D, self.found = D, GoodnessOfFit(ppc, torch.ones(n), few)

    @property
    def mean(self):
        return {"D": self.D, "K": torch.full_like(self.D, 0.5)}

    @property
    def sd(self):
        return {"D": torch.ones_like(self.D), "K": torch.ones_like(self.D)}

    def quantile(self, q):
        return {name: value + q for name, value in self.mean.items()}

    @property
    def goodness_of_fit(self):
        return self.found

    @property
    def responsibilities(self):
        return None


def test_findings_are_added_to_fine_voxels_and_the_last_one_stands():
    D = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    ppc = torch.tensor([0.5, 0.5, 1e-4, 1e-4, 0.002])
    found = Known([FINE] * 5, D, ppc, torch.tensor([0.0, 0, 0, 1, 0]))
    assert with_findings(found).tolist() == [FINE, AT_BOUND, MISFIT, FEW_MISFIT, FINE]


@pytest.mark.parametrize("code", [NOT_FINITE, NO_SIGNAL, NEGATIVE])
@pytest.mark.parametrize("finding", ["bound", "misfit", "few"])
def test_a_code_of_the_data_stays_whatever_the_fit_finds(code, finding):
    D = torch.tensor([0.0 if finding == "bound" else 1.0])
    ppc = torch.tensor([0.5 if finding == "bound" else 1e-4])
    found = Known([code], D, ppc, torch.tensor([float(finding == "few")]))
    assert with_findings(found).tolist() == [code]
    assert found.batch.status.tolist() == [code]


def test_a_bound_is_reached_within_a_hundredth_of_the_range_at_either_end():
    D = torch.tensor([0.03, 0.05, 3.95, 3.97])  # of 0 to 4
    found = at_bound(Known([FINE] * 4, D, torch.ones(4), torch.zeros(4)))
    assert found["D"].tolist() == [True, False, False, True]


def test_an_interval_lies_between_the_quantiles_that_leave_equal_tails():
    found = Known([FINE], torch.tensor([1.0]), torch.ones(1), torch.zeros(1)).interval(0.9)["D"]
    torch.testing.assert_close(found, torch.tensor([[1.05, 1.95]]))
