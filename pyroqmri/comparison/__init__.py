"""Several recipes on the same data: which prior, likelihood or signal predicts best."""

from pyroqmri.comparison.candidate import Candidate
from pyroqmri.comparison.results import Results
from pyroqmri.comparison.run import Plan, compare
from pyroqmri.comparison.training import compare_recipes

__all__ = ["Candidate", "Plan", "Results", "compare", "compare_recipes"]
