"""Arguments of transformers' `generate` that are decoded here; any other leaves the work to transformers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.decoding.beams import BeamSearch
from kebyt5_xm.model.decoding.drafting import draft_decode, make_drafters
from kebyt5_xm.model.decoding.fast import FastDecoder
from kebyt5_xm.model.decoding.opening import open_decoder
from kebyt5_xm.model.decoding.sampling import Sampler
from kebyt5_xm.model.decoding.search import choose_best, decode
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID

DEFAULTS: dict[str, Any] = {
    "max_length": 20,
    "max_new_tokens": None,
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "length_penalty": 1.0,
    "early_stopping": False,
}
"""Arguments decoded here, with transformers' defaults; `max_length` counts the start id."""

FIXED: dict[str, tuple[Any, ...]] = {
    "eos_token_id": (EOS_ID, [EOS_ID]),
    "pad_token_id": (PAD_ID,),
    "decoder_start_token_id": (PAD_ID,),
    "use_cache": (True,),
}
"""Settings of a `GenerationConfig` that may have these values alone."""

_WITHOUT_EFFECT = ("transformers_version", "_from_model_config", "bos_token_id")


@dataclass(frozen=True)
class Generation:
    """How answers are searched for: greedy, by sampling, or with beams."""

    max_length: int
    copies: int = 1
    num_best: int = 1
    sampler: Sampler | None = None
    beams: BeamSearch | None = None

    def __call__(
        self,
        model: CrossModalNetwork,
        states: Tensor,
        attention_mask: Tensor | None,
        input_ids: Tensor | None = None,
    ) -> Tensor:
        """Return ids [B, T], T up to `max_length`, without the start id; rows of one input stand side by side.

        With the inputs [R, S], a single greedy answer on a CPU is drafted (`kebyt5_xm.model.decoding.drafting`).
        """
        decoder = open_decoder(model, states, attention_mask, self.copies, self.max_length)
        if self.beams is not None:
            return self.beams(decoder, len(states), self.max_length, self.num_best)
        if self.sampler is None and input_ids is not None:
            drafters = make_drafters(model, decoder, input_ids)
            if drafters:
                assert isinstance(decoder, FastDecoder)
                return draft_decode(decoder, drafters, self.max_length)
        finished = torch.zeros(len(states) * self.copies, dtype=torch.bool, device=states.device)
        return decode(decoder, finished, self.max_length, self.sampler or choose_best)


def parse_generation(config: GenerationConfig, given: Mapping[str, Any]) -> Generation | None:
    """Return what `given`, the arguments of `generate`, and the model's `config` ask for.

    None if they ask for anything that is not in `DEFAULTS` or is unusual there, such as sampled beams. `generator`, a
    `torch.Generator`, seeds sampling; transformers has no such argument. Raises `UserError` if it is given and
    transformers has to decode.
    """
    found = _parse(config, {name: value for name, value in given.items() if name != "generator"})
    generator = given.get("generator")
    if generator is None:
        return found
    if found is None or found.sampler is None:
        raise UserError(
            f"found a generator with {', '.join(sorted(given.keys() - {'generator'})) or 'no other argument'}; "
            "expected do_sample=True and none but temperature, top_k, top_p, num_return_sequences, max_new_tokens"
        )
    sampler = Sampler(found.sampler.temperature, found.sampler.top_k, found.sampler.top_p, generator)
    return Generation(found.max_length, found.copies, sampler=sampler)


def _parse(config: GenerationConfig, given: Mapping[str, Any]) -> Generation | None:
    config = given.get("generation_config") or config
    values = {name: value for name, value in config.to_dict().items() if value is not None}
    arguments = {name: value for name, value in given.items() if name != "generation_config"}
    if "max_length" in arguments and "max_new_tokens" not in arguments:
        values.pop("max_new_tokens", None)
    values |= arguments
    for name, value in values.items():
        known = name in DEFAULTS or name in _WITHOUT_EFFECT or (value is False and name not in FIXED)
        if not known and value not in FIXED.get(name, ()):
            return None
    wanted = {**DEFAULTS, **{name: value for name, value in values.items() if value is not None}}
    beams, copies, samples = wanted["num_beams"], wanted["num_return_sequences"], wanted["do_sample"]
    new = wanted["max_new_tokens"]
    max_length = wanted["max_length"] - 1 if new is None else new
    changed = {name for name, value in arguments.items() if value not in (None, DEFAULTS.get(name))}
    if max_length < 1 or ("max_length" in arguments and new is not None):
        return None
    if samples and beams == 1 and copies >= 1 and not changed & {"length_penalty", "early_stopping"}:
        if not (wanted["temperature"] > 0 and wanted["top_k"] >= 0 and 0 < wanted["top_p"] <= 1):
            return None
        sampler = Sampler(wanted["temperature"], wanted["top_k"], wanted["top_p"])
        return Generation(max_length, copies, sampler=sampler)
    if samples or changed & {"temperature", "top_k", "top_p"}:
        return None
    if beams > 1 and 1 <= copies <= beams:
        search = BeamSearch(beams, wanted["length_penalty"], wanted["early_stopping"])
        return Generation(max_length, beams, copies, beams=search)
    if beams == copies == 1 and not changed & {"length_penalty", "early_stopping"}:
        return Generation(max_length)
    return None
