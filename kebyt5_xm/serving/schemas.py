"""The JSON of /v1/answer; the OpenAPI schema is made of it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from kebyt5_xm.model.infilling import Gaps
from kebyt5_xm.serving.api_errors import bad_request
from kebyt5_xm.serving.inputs import Content, decode_file
from kebyt5_xm.serving.jobs import CHOICES


def check_text(text: str) -> str:
    """Return a text; raise `ValueError` for half a character, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("found half a character (a lone surrogate), expected text") from None
    return text


def whole(value: object) -> object:
    """Return 3.0 as 3: to JSON Schema both are integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[str, AfterValidator(check_text)]
Integer = Annotated[int, BeforeValidator(whole)]

FILE = "the file itself, as a data: URL or in base64"
MAX_PARTS = 4096
"""Members of a list: a body of nothing but empty texts would otherwise be a gigabyte of objects. Our own choice."""


class Strict(BaseModel):
    """An object whose unknown fields are refused, and whose numbers are finite and no strings."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class TextSegment(Strict):
    """Text."""

    type: Literal["text"]
    text: Text


class MediaSegment(Strict):
    """An image, a recording, or an array of numbers (.npy)."""

    type: Literal["image", "audio", "array"]
    data: Text = Field(description=FILE)
    modality: Text | None = Field(None, description="needed if two modalities take the same kind")


class GapsSegment(Strict):
    """A text with removed spans: the answer is the whole text, with what the model writes into each gap."""

    type: Literal["gaps"]
    pieces: list[Text] = Field(
        min_length=2, max_length=MAX_PARTS, description="the texts before, between and after the gaps"
    )


Segment = Annotated[TextSegment | GapsSegment | MediaSegment, Field(discriminator="type")]


class AnswerRequest(Strict):
    """What `model.answer` takes."""

    segments: Text | Annotated[list[Segment], Field(max_length=MAX_PARTS)] = Field(
        description="one text, or texts and media in the order of training"
    )
    max_new_tokens: Integer | None = Field(
        None,
        ge=1,
        description="most bytes of an answer; a Korean syllable has three. 256 unless the server allows less",
    )
    n: Integer = Field(1, ge=1, description="answers, the best first")
    temperature: float | None = Field(None, ge=0, le=100, description="above 0 samples; 0 is greedy")
    num_beams: Integer | None = Field(None, ge=1)
    top_k: Integer | None = Field(None, ge=0, le=384, description="only the most probable bytes are drawn")
    top_p: float | None = Field(None, gt=0, le=1, description="only the most probable bytes are drawn")
    seed: Integer | None = Field(None, ge=0, lt=2**63, description="the same samples each time")
    labels: list[Text] | None = Field(
        None, max_length=MAX_PARTS, description="the answer is the most probable of these"
    )
    choose: Literal[CHOICES] | None = Field(  # pyright: ignore[reportInvalidTypeForm]
        None, description="of n answers, the one most like the others by this metric"
    )
    details: bool = Field(False, description="probabilities of the answer, its words and its bytes")
    attention: bool = Field(False, description="which slots of its media each word looked at; with details")
    valid_utf8: bool = True
    stop_loops: bool = True
    stream: bool = Field(False, description="server-sent events: pieces of text, then the rest")

    def contents(self) -> list[Content]:
        """Return texts, texts with gaps, and files. Raises `ApiError`."""
        if self.attention and self.labels:
            raise bad_request(
                "found attention with labels, expected one of them; leave the other out", "attention"
            )
        if isinstance(self.segments, str):
            return [self.segments]
        self._check_gaps()
        return [_content(part, number) for number, part in enumerate(self.segments)]

    @property
    def has_gaps(self) -> bool:
        """Whether the answer fills gaps."""
        return any(isinstance(part, GapsSegment) for part in self.segments)

    def _check_gaps(self) -> None:
        """Raise `ApiError` for several texts with gaps, and for arguments that do not fill gaps."""
        count = sum(isinstance(part, GapsSegment) for part in self.segments)
        if count > 1:
            raise bad_request(f"segments: found {count} of type gaps, expected one; it may have several gaps")
        for name in ("labels", "choose", "attention", "stream"):
            if count and getattr(self, name):
                raise bad_request(f"found {name} with gaps, expected one of them; leave the other out", name)


def _content(part: TextSegment | GapsSegment | MediaSegment, number: int) -> Content:
    if isinstance(part, TextSegment):
        return part.text
    if isinstance(part, GapsSegment):
        return Gaps(part.pieces)
    return part.type, part.modality, decode_file(part.data, f"segments.{number}.data")


class Word(BaseModel):
    """A word between white space; `start` and `end` are its characters in the text."""

    text: str
    start: int
    end: int
    confidence: float


class SlotAttention(BaseModel):
    """How much of its attention an answer gave to the slots of one medium: the mean over layers, heads and bytes.

    `shape` is (slots,) in time, or (rows, columns) of an image, whose slots stand row by row; each covers `extents`,
    a share of the medium along each axis. `share` is the sum of `answer`; the rest went to the text, other media and
    slots without a place.
    """

    segment: int = Field(description="number of the segment, from 0")
    modality: str
    shape: list[int]
    extents: list[float]
    share: float
    answer: list[float] = Field(description="a weight for each slot")
    words: list[list[float]] = Field(description="the same for each word; left out above 200,000 weights")


class Answer(BaseModel):
    """One answer; probabilities with `details` alone. A text with gaps has `spans` and their words."""

    text: str
    finish_reason: Literal["stop", "length", "loop"]
    log_probability: float | None = None
    confidence: float | None = None
    words: list[Word] | None = None
    byte_confidence: list[float] | None = None
    spans: list[Word] | None = None
    attention: list[SlotAttention] | None = None


class Usage(BaseModel):
    """Positions of the input (bytes and slots) and bytes of the answers."""

    input_ids: int
    output_bytes: int


class AnswerResponse(BaseModel):
    """The answers, the best first. With labels, the probability of each."""

    model: str
    answers: list[Answer]
    probabilities: dict[str, float] | None = None
    usage: Usage


class ErrorBody(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorResponse(BaseModel):
    """An error in OpenAI's shape."""

    error: ErrorBody


class Health(BaseModel):
    """Whether requests are answered."""

    status: Literal["ok", "failed"]


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorResponse,
        "description": "the request is refused; the message says why and what to do",
    },
    "5XX": {"model": ErrorResponse, "description": "the server failed"},
}
"""Responses of the OpenAPI schema, besides the good one."""

STREAMED: dict[int | str, dict[str, Any]] = ERRORS | {200: {"content": {"text/event-stream": {}}}}
"""Those of a route that streams if it is asked to."""
