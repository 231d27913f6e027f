"""Checkpoints: complete files, or an error."""
