"""What really regularizes a model: ``audit`` and ``penalize doctor``."""
