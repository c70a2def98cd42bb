"""Several recipes on the same data: which prior, likelihood or signal predicts best."""

from pyroqmri.comparison.candidate import Candidate
from pyroqmri.comparison.cross_fit import compare_recipes
from pyroqmri.comparison.results import Results
from pyroqmri.comparison.run import Plan, compare

__all__ = ["Candidate", "Plan", "Results", "compare", "compare_recipes"]
