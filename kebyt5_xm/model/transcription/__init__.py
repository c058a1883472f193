"""Transcription of recordings of any length, with the times of words."""
