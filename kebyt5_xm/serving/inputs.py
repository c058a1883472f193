"""A request's contents as a prepared example, within the limits; nothing is fetched and no path is opened."""

import base64
import binascii
import string
from collections.abc import Sequence
from typing import Literal

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.address import decode_data_url, is_data_url
from kebyt5_xm.data.media.bad_sample import LimitRefusal, MediaError
from kebyt5_xm.data.media.opening import read_header
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.infilling import Gaps
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.serving.api_errors import ApiError, bad_request
from kebyt5_xm.serving.attention import MediumSlots
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.vocabulary import MAX_SENTINELS

MediaKind = Literal["image", "audio", "array"]
REMEDIES: dict[MediaKind, str] = {
    "image": "send a smaller one",
    "audio": "send it in pieces",
    "array": "send a smaller one",
}
"""What a client can do about a medium over a limit."""

Content = str | Gaps | tuple[MediaKind, str | None, bytes]
"""A text, one with gaps, or the kind of a medium, its modality (None for the only one of its kind) and its file."""


def decode_file(data: str, param: str) -> bytes:
    """Return the bytes of a `data:` URL or of base64. Raises `ApiError`, for other URLs too: nothing is fetched."""
    try:
        if is_data_url(data):
            return decode_data_url(data)
        if "://" in data[:100]:
            raise bad_request(
                f"{param}: found a URL, expected the file itself as 'data:image/png;base64,...'; the server fetches "
                "nothing",
                param,
            )
        encoded = data.encode().translate(None, delete=string.whitespace.encode())
        raw = base64.b64decode(encoded, validate=True)
    except MediaError as error:
        raise bad_request(f"{param}: {error.cause}", param) from error
    except (binascii.Error, ValueError) as error:
        raise bad_request(
            f"{param}: found no base64 ({error}), expected a file in base64 or a data: URL", param
        ) from None
    if not raw:
        raise bad_request(f"{param}: found an empty file, expected an image, a recording or an array", param)
    return raw


def make_example(
    processor: CrossModalProcessor, contents: Sequence[Content], limits: ServingLimits
) -> Example:
    """Return the example of a request's contents; it takes the time of decoding them.

    Sizes are compared before anything is decoded. Raises `ApiError`: 413 above a limit, else 400.
    """
    if not any(contents):
        raise bad_request("found an empty request, expected a text, an image or a recording", code="empty")
    segments: list[str | Gaps | tuple[str, bytes]] = []
    num_ids = 1  # the end of sequence
    for number, content in enumerate(contents, 1):
        if isinstance(content, str):
            segments.append(content)
            num_ids += len(content.encode())
        elif isinstance(content, Gaps):
            most = MAX_SENTINELS[processor.sentinels]
            if len(content) > most:
                raise bad_request(f"found {len(content)} gaps, expected at most {most}; fill them in turn")
            segments.append(content)
            num_ids += sum(len(piece.encode()) for piece in content.pieces) + len(content)
        else:
            kind, name, raw = content
            name = find_modality(processor, kind, name)
            segments.append((name, raw))
            num_ids += count_slots(processor, name, raw, limits, number)
        if num_ids > limits.max_input_ids:
            raise ApiError(
                413,
                f"found an input of {num_ids} or more positions (bytes of text and slots of media), expected at most "
                f"{limits.max_input_ids}; shorten the text or send fewer or shorter media",
                "input_too_long",
            )
    try:
        return processor.example(segments, refuse_file_names=False)
    except UserError as error:
        raise bad_request(str(error), code="invalid_media") from error


def find_slots(
    processor: CrossModalProcessor, contents: Sequence[Content], example: Example, limits: ServingLimits
) -> list[MediumSlots]:
    """Return where the slots of the media in an example lie; media whose slots stand for no part are left out."""
    media = iter(example.media)
    found = []
    for number, content in enumerate(contents):
        if isinstance(content, tuple):
            item = next(media)
            interface = processor.interfaces[item.modality]
            grid = interface.slot_grid(read_header(content[2], interface.media, limits.media))
            if grid is not None:
                found.append(MediumSlots(number, item.modality, item.start, grid))
    return found


def find_modality(processor: CrossModalProcessor, kind: MediaKind, name: str | None) -> str:
    known = {name: interface.media for name, interface in processor.interfaces.items()}
    takes = ", ".join(f"'{name}' ({media})" for name, media in known.items()) or "text alone"
    if name is not None:
        if known.get(name) == kind:
            return name
        raise bad_request(
            f"no modality '{name}' of kind {kind}{did_you_mean(name, known)}; the model takes {takes}",
            code="unknown_modality",
        )
    fitting = [name for name, media in known.items() if media == kind]
    if not fitting:
        raise bad_request(
            f"found {kind}, but the model takes {takes}; leave it out, or ask a model trained with {kind}",
            code="unknown_modality",
        )
    if len(fitting) > 1:
        raise bad_request(
            f'found {kind}, which {" and ".join(fitting)} take; name one: "modality": "{fitting[0]}"',
            code="unknown_modality",
        )
    return fitting[0]


def count_slots(
    processor: CrossModalProcessor, name: str, raw: bytes, limits: ServingLimits, number: int
) -> int:
    interface = processor.interfaces[name]
    try:
        return interface.num_slots(read_header(raw, interface.media, limits.media))
    except MediaError as error:
        if isinstance(error.__cause__, LimitRefusal):
            found = error.cause.partition("; ")[0]
            message = f"part {number}, {interface.media}: {found}; {REMEDIES[interface.media]}"
            raise ApiError(413, message, f"{interface.media}_too_large") from error
        raise bad_request(f"part {number} cannot be used: {error.cause}", code="invalid_media") from error
    except UserError as error:
        raise bad_request(f"part {number}: {error}", code="invalid_media") from error
