"""Choosing a strength in JAX: paths and cross-validation."""
