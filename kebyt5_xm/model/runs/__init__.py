"""Run directories and checkpoints: writing and reading them."""
