"""Decoding: the ids that a model writes for its encoder's states."""

from kebyt5_xm.model.decoding.greedy import CHECK_EVERY, encode, greedy_decode

__all__ = ["CHECK_EVERY", "encode", "greedy_decode"]
