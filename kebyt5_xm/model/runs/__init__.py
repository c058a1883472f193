"""Runs and checkpoints: what training leaves behind, and how it is read."""
