"""T5's attention: what a query sees and what is added to its scores, and implementations that compute it.

`pattern` says what is computed, `reference` computes it in the plainest way. Every other implementation has the
signature of `reference.attention` and gives its results to floating-point tolerance.
"""
