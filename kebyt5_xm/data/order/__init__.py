"""The order of examples: the plan, the mixture, the steps."""
