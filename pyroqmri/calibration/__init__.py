"""Calibration of a fit: coverage and ranks on simulated voxels, and the correction learned from them."""
