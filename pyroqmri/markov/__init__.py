"""Gaussian Markov random fields over the voxels of an image: numpy and scipy alone."""
