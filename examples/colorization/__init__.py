"""Code shared by the colorization examples: photographs, color spaces, metrics, baselines, pictures, commands."""
