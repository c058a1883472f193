"""Learning rates that fall from the top of a stack of blocks to its input (Howard & Ruder 2018; Bao et al. 2022).

A stack is found in the parameters' names: `backbone.encoder.block.3.`, `modalities.image.encoder.model.blocks.5.`.
What stands before a stack in the model (embeddings, patches, positions) is one place below block 0; what stands after
it (its last norm, a head, an adapter) has the full rate.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BLOCK = re.compile(r"(?!modalities\.[^.]+\.adapter\.)(.*?\.(?:blocks?|layers?|stages?))\.(\d+)\.")
"""The outermost numbered block of a name: T5's and ViTs' `block`, `blocks`, `layer` or `layers`; `stages` of CNNs.
Those of an adapter, which is new in every run, are no stack."""


@dataclass(frozen=True)
class Place:
    """Where a parameter stands: `label` names its optimizer group, `above` counts the blocks above it."""

    label: str
    above: int


def find_places(names: Sequence[str]) -> dict[str, Place | None]:
    """Return the place of every parameter of a model, names in its own order; None where there is no stack."""
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
    """Return the stack of the same part with the longest common beginning: the next such one, else the last."""
    own = name.split(".")
    shared = {stack: _common(own, stack.split(".")) for stack in first}
    least = 1 if own[0] == "backbone" else 2  # of a modality, its name too
    most = max((length for length in shared.values() if length >= least), default=0)
    candidates = [stack for stack, length in shared.items() if length == most and most]
    following = [stack for stack in candidates if first[stack] > position]
    return following[0] if following else candidates[-1] if candidates else None


def _common(one: list[str], other: list[str]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def _short(stack: str) -> str:
    return stack.removeprefix("backbone.").removeprefix("modalities.")
