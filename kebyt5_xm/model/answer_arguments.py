"""The arguments of `CrossModalT5.answer`: checked before anything is computed, and as `generate` takes them."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral, Real
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.decoding.arguments import generation_settings, longest_answer

MAX_NEW_TOKENS = 256
"""Default of `answer`, in bytes; transformers' own 20 would cut nearly every answer."""

OWN = ("n", "labels", "stream", "choose", "details", "valid_utf8", "stop_loops", "generator")
"""Arguments of `answer` that `generate` does not have."""

REMEDIES = {
    "num_return_sequences": "n",
    "streamer": "stream=True",
    "return_dict_in_generate": "details=True",
    "output_scores": "details=True",
    "output_logits": "details=True",
}
"""Arguments of `generate` that are refused, and what does the same here."""

SAMPLING = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n": (_is_count, "a whole number from 1 on"),
    "num_beams": (_is_count, "a whole number from 1 on"),
    "max_new_tokens": (_is_count, "a whole number from 1 on"),
    "max_length": (lambda x: _is_count(x) and x > 1, "a whole number from 2 on, which counts the start id"),
    "temperature": (lambda x: _is_number(x) and x >= 0, "0 for greedy or a positive number such as 0.7"),
    "top_k": (lambda x: x == 0 or _is_count(x), "a whole number, 0 for all"),
    "top_p": (lambda x: _is_number(x) and 0 < x <= 1, "a number above 0, up to 1"),
    "generator": (lambda x: isinstance(x, torch.Generator), "a torch.Generator"),
}
"""Argument -> whether a value is possible, and which ones are."""


def search_arguments(
    config: GenerationConfig,
    n: int,
    temperature: float | None,
    num_beams: int | None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the arguments of `generate` for n answers, given the model's own `config` and other arguments.

    Raises `UserError` for an unknown argument, a value out of range, and arguments that exclude each other.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    _check({"n": n, "temperature": temperature, "num_beams": num_beams, **wanted})
    if temperature:
        if num_beams is not None and num_beams > 1:
            raise UserError("found temperature with num_beams, expected one of them: sampling or beams")
        wanted |= {"do_sample": True, "temperature": float(temperature)}
    elif temperature is not None:
        wanted["do_sample"] = False
    if num_beams is not None:
        wanted["num_beams"] = num_beams
    settings = generation_settings(config, wanted)
    for name in SAMPLING:
        if name in wanted and not settings["do_sample"]:
            raise UserError(f"found {name} without sampling, expected a temperature with it, such as 0.7")
    wanted["num_return_sequences"] = n
    if n > 1 and not settings["do_sample"]:
        wanted["num_beams"] = max(n, settings["num_beams"])
    if not {"max_length", "max_new_tokens", "generation_config"} & wanted.keys():
        wanted["max_new_tokens"] = MAX_NEW_TOKENS
    if longest_answer(generation_settings(config, wanted)) < 1:
        raise UserError(
            "found a generation_config without room for a byte, expected max_new_tokens=1 or more"
        )
    return wanted


@cache
def _known() -> frozenset[str]:
    """Return the names of all arguments that `answer` or transformers' `generate` has."""
    parameters = inspect.signature(vars(GenerationMixin)["generate"]).parameters.keys()
    return frozenset({*OWN, *vars(GenerationConfig()), *parameters} - {"self", "inputs", "kwargs"})


def _check(given: Mapping[str, Any]) -> None:
    """Raise `UserError` for an unknown argument or a value out of range."""
    known = _known()
    for name, value in given.items():
        if name in REMEDIES:
            raise UserError(f"found the argument {name}, expected {REMEDIES[name]}, which does that here")
        if name not in known or name.startswith("_"):
            near = did_you_mean(name, known)
            raise UserError(
                f"found the argument {name}, expected one of answer or of transformers' generate{near}"
            )
        fits, expected = RANGES.get(name, (None, ""))
        if fits is not None and value is not None and not fits(value):
            raise UserError(f"found {name}={value!r}, expected {expected}")
