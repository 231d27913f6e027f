"""Hand-derived gradients and kernels; everything works without them."""
