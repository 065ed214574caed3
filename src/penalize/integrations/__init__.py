"""Plans within trainers: one module for each, loaded by its name alone."""
