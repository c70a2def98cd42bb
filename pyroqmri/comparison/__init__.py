"""Several recipes on the same data: which prior, likelihood or signal predicts best."""

from pyroqmri.comparison.candidate import Candidate
from pyroqmri.comparison.run import Plan, compare

__all__ = ["Candidate", "Plan", "compare"]
