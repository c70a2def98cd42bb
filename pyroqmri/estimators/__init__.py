"""Estimators that are not voxel models."""

from pyroqmri.estimators.point import PointEstimates, Search, search

__all__ = ["PointEstimates", "Search", "search"]
