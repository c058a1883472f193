"""Transformers' own T5, without anything that `Backbone.build` adds: what the benchmarks compare with."""

import copy

from transformers import T5Config, T5ForConditionalGeneration


def plain_t5(config: T5Config, attention: str = "sdpa") -> T5ForConditionalGeneration:
    """Return a T5 with random weights, in training mode. `attention` is one of transformers' own."""
    config = copy.deepcopy(config)
    config._attn_implementation = attention
    t5 = T5ForConditionalGeneration(config)
    t5.set_input_embeddings(t5.shared)  # transformers gives each stack its own if the head is untied
    return t5.train()


def plain_copy(t5: T5ForConditionalGeneration, attention: str = "sdpa") -> T5ForConditionalGeneration:
    """Return a T5 with the weights of another, in its mode, on its device."""
    plain = plain_t5(t5.config, attention)
    plain.load_state_dict(t5.state_dict())
    return plain.to(t5.device).train(t5.training)  # pyright: ignore[reportArgumentType]
