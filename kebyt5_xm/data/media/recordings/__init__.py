"""Recordings: decodes common formats to mono float32 at their own sample rate."""
