"""What a PyTorch model is: its weights, how they are reached, and what they are for."""
