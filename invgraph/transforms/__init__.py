"""Elementwise transforms, one per file."""
