"""What the page shows of a model: its prompts, and examples to try. All of it is decided before the server starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from kebyt5_xm.encoder import Media

TRANSCRIPTION = "transcription"
"""Name of the prompt that --transcription-prompt gives."""


class TextPart(BaseModel):
    """Text of a prompt."""

    type: Literal["text"] = "text"
    text: str


class FieldPart(BaseModel):
    """A text that its user gives; `values` are those that were seen, if they are few."""

    type: Literal["field"] = "field"
    name: str
    values: list[str] = []


class MediumPart(BaseModel):
    """The place of a medium."""

    type: Literal["image", "audio", "array"]
    modality: str


PromptPart = Annotated[TextPart | FieldPart | MediumPart, Field(discriminator="type")]


class Prompt(BaseModel):
    """A prompt with which the model was trained; with `labels` the answer is one of them."""

    name: str
    parts: list[PromptPart]
    labels: list[str] | None = None

    @property
    def media(self) -> list[MediumPart]:
        """The places of media."""
        return [part for part in self.parts if isinstance(part, MediumPart)]


class Example(BaseModel):
    """A held-out row: the number of its prompt, its fields, the numbers of its files, and the right answer."""

    prompt: int
    fields: dict[str, str]
    files: list[int]
    target: str


class GapExample(BaseModel):
    """A held-out text with a gap, and what stood there."""

    pieces: list[str]
    spans: list[str]


@dataclass
class PageContent:
    """Prompts and examples; `files` are the contents of the examples' media, by number."""

    prompts: list[Prompt] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    gaps: list[GapExample] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)

    def complete(self, modalities: Mapping[str, Media], transcription: list[str], fills: bool) -> None:
        """Add a prompt for every modality that has none, and one of text where there would be none.

        `transcription` are the texts before and after the recording of the server's transcriptions.
        """
        shown = {part.modality for prompt in self.prompts for part in prompt.media}
        for name, media in modalities.items():
            if name in shown:
                continue
            before, after = transcription if media == "audio" else ("", "")
            parts = [TextPart(text=before), MediumPart(type=media, modality=name), TextPart(text=after)]
            kept = [part for part in parts if not isinstance(part, TextPart) or part.text]
            self.prompts.append(Prompt(name=name, parts=kept))
        if not self.prompts and not fills:
            self.prompts.append(Prompt(name="text", parts=[]))
