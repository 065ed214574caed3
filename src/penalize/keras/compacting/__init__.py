"""From zeros to a smaller Keras model with the same answers, for chains of layers."""
