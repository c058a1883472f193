"""The calls that transformers' pipeline `any-to-any` makes of a processor, as the segments of this one.

    pipe = pipeline("any-to-any", model=FOLDER)  # after `import kebyt5_xm.auto`
    pipe(text=" ko:", images="a.png", return_full_text=False)
    pipe(text=[{"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": " ko:"}]}])

Of a plain call, the media come before the text, images first. A chat of one message says their order itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import ProcessorMixin

from kebyt5_xm.data.media.address import decode_data_url, is_data_url
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.hub_arguments import refuse_unknown
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, decode

ITEM_KEYS = {"image": ("image", "url", "path", "base64"), "audio": ("audio", "url", "path")}
"""Keys of a content block that may hold its medium, by the block's type; transformers' own."""

ALWAYS = {"return_tensors": ("pt",), "padding": (True, "longest")}
"""Options of a call that say what happens here anyway."""

OPTION_REMEDIES = {
    "return_tensors": "inputs are PyTorch's tensors",
    "truncation": "nothing is cut here: give a shorter text",
    "max_length": "nothing is cut here: give a shorter text",
    "timeout": "only local files are opened",
}
"""Options of a call that are refused -> what to do instead."""

SLOT_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Begins the text of an input. No answer begins so: the pipeline takes an input's text off an answer that begins with
it, and here an answer never repeats its input."""


class ByteVocabulary:
    """What transformers asks of a tokenizer, where there is none: a trainer compares the special ids.

    A pipeline that finds a padding id would pad batches by itself, without the media, so it finds none and refuses.
    """

    eos_token_id = EOS_ID
    bos_token_id = None
    pad_token_id = None

    def get_vocab(self) -> dict[str, int]:
        """Raise `UserError`: `stop_sequence` of a pipeline needs a vocabulary of strings."""
        raise UserError(
            "found a stop sequence, which needs a vocabulary of strings; cut the answer at it instead"
        )


class PipelineProcessor(ProcessorMixin):
    """What pipelines and trainers of transformers ask of a processor besides its inputs."""

    tokenizer = ByteVocabulary()
    chat_template = None
    model_input_names = ["input_ids", "attention_mask", "media"]  # pyright: ignore # noqa: RUF012

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:  # pyright: ignore
        """Return the inputs of a chat of one message, its texts and media in order.

        Raises `UserError` for more messages: the model answers one prompt of the form that it was trained on.
        """
        return self(chat_segments(conversation, self.modality_of))

    def modality_of(self, kind: str) -> str:
        """Return the only modality that takes a kind of media. Raises `UserError` if there are none or several."""
        raise NotImplementedError

    def post_process_multimodal_output(self, generated_outputs: Any, **options: Any) -> list[str]:  # pyright: ignore
        """Return the texts of generated ids [B, T], or of inputs [B, S] after `SLOT_MARK`.

        Generated ids begin with the decoder's start id, and a byte or the end follows.
        """
        texts = []
        for row in generated_outputs.tolist():
            is_answer = row[0] == PAD_ID and len(row) > 1 and row[1] != PAD_ID
            texts.append(decode(row) if is_answer else SLOT_MARK + decode(row))
        return texts


def call_segments(
    modality_of: Callable[[str], str],
    text: str | Sequence[str] | None = None,
    images: Any = None,
    audio: Any = None,
    videos: Any = None,
    sampling_rate: int | None = None,
    **options: Any,
) -> list[Any]:
    """Return the segments of a plain call: one list, or a list of lists for several texts.

    `sampling_rate` in Hz is that of recordings given as arrays. Raises `UserError` if the numbers of texts and of
    media differ, and for options that would change the inputs.
    """
    remedies = {
        name: OPTION_REMEDIES.get(name, "options of generate go into generate_kwargs") for name in options
    }
    refuse_unknown("a processor", options, remedies, ALWAYS)
    if videos is not None:
        raise UserError(
            "found videos, expected text, images and audio: no modality takes videos; give frames"
        )
    given = {kind: items for kind, items in (("image", images), ("audio", audio)) if items is not None}
    is_batch = text is not None and not isinstance(text, str)
    texts = [text or ""] if text is None or isinstance(text, str) else list(text)
    rows: list[list[Any]] = [[] for _ in texts]
    for kind, items in given.items():
        if is_batch:
            if not isinstance(items, list) or len(items) != len(rows):
                found = len(items) if isinstance(items, list) else "no list"
                raise UserError(
                    f"found {len(rows)} texts and {found} for {kind}, expected a list with an entry for every text"
                )
            parts = items
        else:
            parts = [items]
        for row, part in zip(rows, parts, strict=True):
            row += _media(modality_of(kind), part if isinstance(part, list) else [part], sampling_rate)
    rows = [[*row, *([one] if one else [])] for row, one in zip(rows, texts, strict=True)]
    return rows if is_batch else rows[0]


def chat_segments(conversation: Any, modality_of: Callable[[str], str]) -> list[Any]:
    """Return the segments of a chat of one user message, in order. Raises `UserError`."""
    messages = [conversation] if isinstance(conversation, Mapping) else list(conversation)
    if len(messages) != 1 or not isinstance(messages[0], Mapping) or messages[0].get("role") != "user":
        raise UserError(
            f"found a chat of {len(messages)} messages, expected one of the role 'user': the model knows no turns, "
            "and answers one prompt of the form that it was trained on"
        )
    content = messages[0].get("content")
    if isinstance(content, str):
        return [content]
    segments: list[Any] = []
    for block in content or ():
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "text":
            segments.append(block.get("text", ""))
        elif kind == "image_url":
            link = block.get("image_url")
            segments += _media(modality_of("image"), [link.get("url") if isinstance(link, Mapping) else link])
        elif kind in ITEM_KEYS:
            items = [block[key] for key in ITEM_KEYS[kind] if block.get(key) is not None]
            segments += _media(modality_of(kind), items or [None])
        else:
            raise UserError(
                f"found the content {str(block)[:80]!r}, expected a mapping of the type text, image or audio"
            )
    return [segment for segment in segments if segment != ""]


def _media(modality: str, items: Sequence[Any], sampling_rate: int | None = None) -> list[tuple[str, Any]]:
    """Return (modality, item) of every medium: a path, the bytes of a data URL, or the item itself."""
    found: list[tuple[str, Any]] = []
    for item in items:
        if item is None:
            raise UserError(
                f"found nothing for '{modality}', expected a path, a data URL, or the medium itself"
            )
        if isinstance(item, str) and is_data_url(item):
            found.append((modality, decode_data_url(item)))
        elif isinstance(item, str) and "://" in item:
            raise UserError(f"found the URL '{item:.80}', expected a file: download it and give its path")
        elif sampling_rate is not None and hasattr(item, "shape"):
            found.append((modality, (item, sampling_rate)))
        else:
            found.append((modality, item))
    return found
