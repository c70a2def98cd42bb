"""Measurements of many voxels: the noise level, the preparation for a model, repeats, status codes."""
