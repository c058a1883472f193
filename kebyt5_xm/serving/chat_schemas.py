"""The JSON of OpenAI's /v1/chat/completions, as far as a model here can do it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from kebyt5_xm.serving.inputs import Content, decode_file
from kebyt5_xm.serving.jobs import Search
from kebyt5_xm.serving.schemas import MAX_PARTS, Integer, Strict, Text

IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""Arguments for OpenAI's own bookkeeping, without effect on an answer."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "tools": ([],),
    "tool_choice": ("none",),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "parallel_tool_calls": (True, False),
}
"""Arguments that are accepted with values that ask for nothing."""


class TextPart(Strict):
    """Text."""

    type: Literal["text"]
    text: Text


class ImageUrl(Strict):
    """An image as a data: URL."""

    url: Text
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(Strict):
    """A recording in base64; its content tells its format."""

    data: Text
    format: Text | None = None


class AudioPart(Strict):
    """A recording."""

    type: Literal["input_audio"]
    input_audio: InputAudio


Part = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class Message(Strict):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=MAX_PARTS)]
    name: Text | None = None


class StreamOptions(Strict):
    """What a stream ends with."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(Strict):
    """A conversation. The contents of its messages, joined by line ends, are the input; roles are not written."""

    model: Text
    messages: list[Message] = Field(min_length=1, max_length=MAX_PARTS)
    max_completion_tokens: Integer | None = Field(None, ge=1)
    max_tokens: Integer | None = Field(None, ge=1)
    n: Integer | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: Integer | None = Field(None, ge=0, lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def drop_neutral(cls, values: Any) -> Any:
        """Drop arguments that ask for nothing; every other unknown one is refused afterwards."""
        if not isinstance(values, dict):
            return values
        return {
            name: value
            for name, value in values.items()
            if name not in IGNORED
            and value is not None
            and not any(value == neutral for neutral in NEUTRAL.get(str(name), ()))
        }

    def contents(self) -> list[Content]:
        """Return texts and files in order. Raises `ApiError`."""
        contents: list[Content] = []
        for number, message in enumerate(self.messages):
            if number:
                contents.append("\n")
            parts = message.content
            for place, part in enumerate(
                [TextPart(type="text", text=parts)] if isinstance(parts, str) else parts
            ):
                where = f"messages.{number}.content.{place}"
                if isinstance(part, TextPart):
                    contents.append(part.text)
                elif isinstance(part, ImagePart):
                    raw = decode_file(part.image_url.url, f"{where}.image_url.url")
                    contents.append(("image", None, raw))
                else:
                    raw = decode_file(part.input_audio.data, f"{where}.input_audio.data")
                    contents.append(("audio", None, raw))
        return contents

    def search(self, longest: int) -> Search:
        """Return how an answer of at most `longest` bytes is searched for.

        `top_p` and `seed` have no effect on a greedy answer, and clients send them all the same.
        """
        samples = bool(self.temperature)
        return Search(
            max_new_tokens=longest,
            n=self.n or 1,
            temperature=self.temperature,
            top_p=self.top_p if samples else None,
            seed=self.seed if samples else None,
        )


class ChatUsage(BaseModel):
    """Positions of the input and bytes of the answers: a byte-level model's tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """An answer and why it ended."""

    index: int
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatResponse(BaseModel):
    """OpenAI's chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
