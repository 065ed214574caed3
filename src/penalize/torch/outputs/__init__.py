"""Penalties on the outputs of modules."""
