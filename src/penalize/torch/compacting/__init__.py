"""From zeros to a smaller model with the same answers."""
