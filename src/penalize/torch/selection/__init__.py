"""Choosing a strength: paths, cross-validation, studies."""
