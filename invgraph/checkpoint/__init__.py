"""Checkpoints: files that are whole or refused."""
