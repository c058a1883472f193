"""Training: recipes, the command line, the task, what trains and how fast."""
