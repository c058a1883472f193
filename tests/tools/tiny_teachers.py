"""Tiny random models of transformers that write text, with tokenizers made here: no hub, no files."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    ByT5Tokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

CHAT = "{% for message in messages %}<{{ message.role }}>{{ message.content }}</>{% endfor %}<assistant>"


def byte_tokenizer(**tokens: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with an id for each byte and an end, but no padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", **tokens)


def causal_model(seed: int = 9, positions: int = 61) -> tuple[Any, PreTrainedTokenizerFast]:
    """Return a GPT-2 whose end is about as probable as its other ids, without a padding id."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=257,
        n_positions=positions,
        n_embd=24,
        n_layer=2,
        n_head=3,
        eos_token_id=256,
        bos_token_id=256,
    )
    model = GPT2LMHeadModel(config).eval()
    torch.nn.init.normal_(model.transformer.wte.weight, std=0.5)
    return with_ends(model), byte_tokenizer()


def seq2seq_model(seed: int = 9) -> tuple[Any, ByT5Tokenizer]:
    """Return a T5 on bytes."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=384, d_model=24, d_kv=8, d_ff=31, num_layers=2, num_heads=3, decoder_start_token_id=0
    )
    model = T5ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=0.7)
    return with_ends(model), ByT5Tokenizer()


def with_ends(model: Any) -> Any:
    """Return a model that ends some answers early, since its end has larger logits than other ids."""
    with torch.no_grad():
        model.lm_head.weight[model.config.eos_token_id] *= 3
    return model


def save(folder: Path, model: Any, tokenizer: Any) -> str:
    """Write a model with its tokenizer as a folder of transformers; return its path."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
