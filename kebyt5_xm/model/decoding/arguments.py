"""Arguments of transformers' `generate` that are decoded here; any other leaves the work to transformers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.decoding.beams import BeamSearch
from kebyt5_xm.model.decoding.decoder import Decoder
from kebyt5_xm.model.decoding.drafting import draft_blocks, make_drafters
from kebyt5_xm.model.decoding.fast import FastDecoder
from kebyt5_xm.model.decoding.opening import open_decoder
from kebyt5_xm.model.decoding.sampling import Sampler
from kebyt5_xm.model.decoding.search import choose_best, cut, decode_blocks
from kebyt5_xm.model.decoding.utf8 import RuledRows, utf8_rule
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
        valid_utf8: bool = False,
    ) -> Tensor:
        """Return ids [B, T], T up to `max_length`, without the start id; rows of one input stand side by side.

        PAD stands after the end of sequence. With the inputs [R, S], a single greedy answer on a CPU is drafted
        (`kebyt5_xm.model.decoding.drafting`). `valid_utf8` leaves no way to write anything else
        (`kebyt5_xm.model.decoding.utf8`).
        """
        if self.beams is not None:
            decoder = open_decoder(model, states, attention_mask, self.copies, self.max_length)
            rule = self._rule(decoder, len(states)) if valid_utf8 else None
            return self.beams(decoder, len(states), self.max_length, self.num_best, rule=rule)
        unfinished = set(range(len(states) * self.copies))
        blocks = list(self.blocks(model, states, attention_mask, input_ids, unfinished, valid_utf8))
        return cut(torch.cat(blocks, dim=1))

    def blocks(
        self,
        model: CrossModalNetwork,
        states: Tensor,
        attention_mask: Tensor | None,
        input_ids: Tensor | None,
        unfinished: set[int],
        valid_utf8: bool = False,
    ) -> Iterator[Tensor]:
        """Yield the ids of `__call__` as they are written, some columns at a time; not for beams.

        `unfinished` are the numbers of all rows; see `kebyt5_xm.model.decoding.search.decode_blocks`.
        """
        assert self.beams is None
        decoder = open_decoder(model, states, attention_mask, self.copies, self.max_length)
        if self.sampler is None and input_ids is not None:
            drafters = make_drafters(model, decoder, input_ids)
            if drafters:
                assert isinstance(decoder, FastDecoder)
                drafted = utf8_rule(decoder.weights.vocab_size, decoder.device) if valid_utf8 else None
                for new in draft_blocks(decoder, drafters, self.max_length, drafted):
                    yield torch.tensor([new])
                    if not unfinished:
                        return
                return
        rows, choose = len(states) * self.copies, self.sampler or choose_best
        rule = self._rule(decoder, len(states)) if valid_utf8 else None
        yield from decode_blocks(decoder, rows, unfinished, self.max_length, choose, rule)

    def _rule(self, decoder: Decoder, num_inputs: int) -> RuledRows:
        return RuledRows(num_inputs * self.copies, self.max_length, decoder.device)


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
    return replace(found, sampler=replace(found.sampler, generator=generator))


def longest_answer(settings: Mapping[str, Any]) -> int:
    """Return how many ids `generate` writes at most with `generation_settings`, without the start id."""
    new = settings["max_new_tokens"]
    return settings["max_length"] - 1 if new is None else new


def generation_settings(config: GenerationConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `DEFAULTS`, replaced by the settings of the configuration, replaced by the given arguments."""
    config = given.get("generation_config") or config
    values = {name: value for name, value in config.to_dict().items() if value is not None}
    if "max_length" in given and "max_new_tokens" not in given:
        values.pop("max_new_tokens", None)
    values |= {name: value for name, value in given.items() if name != "generation_config"}
    return {**DEFAULTS, **{name: value for name, value in values.items() if value is not None}}


def _parse(config: GenerationConfig, given: Mapping[str, Any]) -> Generation | None:
    arguments = {name: value for name, value in given.items() if name != "generation_config"}
    wanted = generation_settings(config, given)
    for name, value in wanted.items():
        known = name in DEFAULTS or name in _WITHOUT_EFFECT or (value is False and name not in FIXED)
        if not known and value not in FIXED.get(name, ()):
            return None
    beams, copies, samples = wanted["num_beams"], wanted["num_return_sequences"], wanted["do_sample"]
    new, max_length = wanted["max_new_tokens"], longest_answer(wanted)
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
