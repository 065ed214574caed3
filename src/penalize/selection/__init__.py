"""Paths of strengths, in whatever framework a model is: what all wings share."""
