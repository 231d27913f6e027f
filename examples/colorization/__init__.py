"""Code shared by the colorization examples: photographs, colour spaces, metrics, baselines, pictures, commands."""
