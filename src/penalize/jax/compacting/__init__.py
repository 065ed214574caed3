"""From zeros to a smaller module of Flax NNX with the same answers, for chains of layers."""
