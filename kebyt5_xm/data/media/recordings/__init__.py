"""Recordings: any common file becomes one channel of float32 at its own rate."""
