"""The JSON of transcriptions, in OpenAI's shape."""

from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel

from kebyt5_xm.model.transcription.transcript import Transcript


class Tokens(BaseModel):
    """Positions of the input and bytes of the answer."""

    type: Literal["tokens"]
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Transcription(BaseModel):
    """What is said."""

    text: str
    usage: Tokens


class TranscriptionWord(BaseModel):
    """A word and when it is said, in seconds."""

    word: str
    start: float
    end: float


class TranscriptionSegment(BaseModel):
    """A subtitle: words between pauses."""

    id: int
    start: float
    end: float
    text: str
    temperature: float


class VerboseTranscription(BaseModel):
    """What is said, and when. `language` is the request's."""

    task: Literal["transcribe"]
    language: str | None
    duration: float
    text: str
    words: list[TranscriptionWord] | None = None
    segments: list[TranscriptionSegment] | None = None
    usage: Tokens


def verbose(
    transcript: Transcript, language: str | None, temperature: float, shown: Collection[str]
) -> dict[str, Any]:
    """Return a `VerboseTranscription` but for its usage, with the words or segments that are `shown`."""
    found = {
        "task": "transcribe",
        "language": language,
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
    }
    if "word" in shown:
        found["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.stop, 3)}
            for word in transcript.words
        ]
    if "segment" in shown:
        found["segments"] = [
            {
                "id": number,
                "start": round(cue.start, 3),
                "end": round(cue.stop, 3),
                "text": cue.text,
                "temperature": temperature,
            }
            for number, cue in enumerate(transcript.cues())
        ]
    return found
