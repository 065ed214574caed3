"""The ways in which a plan acts on a step, one file each."""
