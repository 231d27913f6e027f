"""Densities of latents, and of data under fixed conditions."""
