"""Classical fits, each voxel by itself: least squares and maximum likelihood."""
