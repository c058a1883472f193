"""Transcription of recordings of any length, with the times of words."""

from kebyt5_xm.model.transcription.transcriber import Cutting, Transcriber
from kebyt5_xm.model.transcription.transcript import TimedWord, Transcript

__all__ = ["Cutting", "TimedWord", "Transcriber", "Transcript"]
