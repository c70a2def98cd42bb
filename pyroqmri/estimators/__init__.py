"""Estimators that are not voxel models."""

from pyroqmri.estimators.labels import LABELS
from pyroqmri.estimators.learning import Learning
from pyroqmri.estimators.network import NetworkEstimates, ParameterNetwork, Shape
from pyroqmri.estimators.point import PointEstimates
from pyroqmri.estimators.searching import Search, search
from pyroqmri.estimators.teaching import Lesson, Taught, teach
from pyroqmri.estimators.truth import Scanner, Simulation

__all__ = [
    "LABELS",
    "Learning",
    "Lesson",
    "NetworkEstimates",
    "ParameterNetwork",
    "PointEstimates",
    "Scanner",
    "Search",
    "Shape",
    "Simulation",
    "Taught",
    "search",
    "teach",
]
