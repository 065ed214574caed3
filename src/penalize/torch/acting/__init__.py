"""A plan that is attached to optimizers."""
