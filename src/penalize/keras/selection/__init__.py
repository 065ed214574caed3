"""Choosing a strength in Keras: paths and cross-validation."""
