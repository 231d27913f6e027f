"""What the two colorization examples share: photographs, colour spaces, metrics, baselines, pictures, commands."""
