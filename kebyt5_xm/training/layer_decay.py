"""Learning rates that fall from the top of a stack of blocks to its input (Howard & Ruder 2018; Bao et al. 2022).

Stacks are found by the names of parameters: `backbone.encoder.block.3.`, `modalities.image.encoder.model.blocks.5.`.
Parameters before a stack (embeddings, patches, positions) count as one block below block 0. Parameters after it (its
last norm, a head, an adapter) have the full rate.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BLOCK = re.compile(r"(?!modalities\.[^.]+\.adapter\.)(.*?\.(?:blocks?|layers?|stages?))\.(\d+)\.")
"""The outermost numbered block of a name: `block`, `blocks`, `layer` or `layers` of T5 and ViTs, `stages` of CNNs.
Blocks of an adapter do not count: adapters are trained from scratch."""


@dataclass(frozen=True)
class Place:
    """The place of a parameter: `label` names its optimizer group, `above` is the number of blocks above it."""

    label: str
    above: int


def find_places(names: Sequence[str]) -> dict[str, Place | None]:
    """Return name -> place of the parameters of a model, in the model's order; None for a part without a stack."""
    blocks = {name: (match[1], int(match[2])) for name in names if (match := _BLOCK.match(name))}
    first: dict[str, int] = {}
    depth: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in blocks:
            stack, index = blocks[name]
            first.setdefault(stack, position)
            depth[stack] = max(depth.get(stack, 0), index + 1)
    found: dict[str, Place | None] = {}
    for position, name in enumerate(names):
        if name in blocks:
            stack, index = blocks[name]
            found[name] = Place(f"{_short(stack)}.{index}", depth[stack] - 1 - index)
            continue
        stack = _nearest(name, position, first)
        if stack is None:
            found[name] = None
        elif position < first[stack]:
            found[name] = Place(f"{_short(stack)}.below", depth[stack])
        else:
            found[name] = Place("", 0)
    return found


def _nearest(name: str, position: int, first: dict[str, int]) -> str | None:
    """Return the stack of the same part with the longest common prefix: the next after `position`, else the last."""
    words = name.split(".")
    shared = {stack: _common_length(words, stack.split(".")) for stack in first}
    min_length = 1 if words[0] == "backbone" else 2  # the name of a modality must match too
    longest = max((length for length in shared.values() if length >= min_length), default=0)
    candidates = [stack for stack, length in shared.items() if length == longest and longest]
    following = [stack for stack in candidates if first[stack] > position]
    return following[0] if following else candidates[-1] if candidates else None


def _common_length(one: list[str], other: list[str]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def _short(stack: str) -> str:
    return stack.removeprefix("backbone.").removeprefix("modalities.")
