"""Modes and curvatures of many voxels at once: where guides start, and what classical fits are made of."""
