"""Parts of the MNIST example: data, the judge of generated digits, measurements, pictures."""
