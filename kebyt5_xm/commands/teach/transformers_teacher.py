"""The teacher that is a text-to-text model of transformers: an encoder-decoder or a causal language model.

Letters in shapes: B prompts, S ids of the longest, T new ids, V the vocabulary.
"""

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from kebyt5_xm.commands.generate.output import model_digest
from kebyt5_xm.commands.teach.teacher import Taught, no_media
from kebyt5_xm.errors import UserError, first_line

GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_k": None,
    "top_p": None,
    "max_length": None,
    "output_logits": True,
    "return_dict_in_generate": True,
}
"""Options of `generate`: they replace those in the model's generation_config.json; its others stay."""


class TransformersTeacher:
    """A model with its tokenizer, decoded greedily.

    Args:
        name: of the model, for messages.
        model: in eval mode.
        tokenizer: of `AutoTokenizer`, or any other with its interface.
        max_new_tokens: most ids of an answer.
        chat: whether prompts are put into the tokenizer's chat template, as the user's words.

    Raises `UserError` if `chat` is true and the tokenizer has no template.
    """

    def __init__(
        self, name: str, model: Any, tokenizer: Any, max_new_tokens: int, chat: bool = False
    ) -> None:
        self._name, self._model, self._tokenizer, self._chat = name, model, tokenizer, chat
        if chat and not getattr(tokenizer, "chat_template", None):
            raise UserError(f"found --chat with '{name}', whose tokenizer has no chat template; leave it out")
        self._options = copy.deepcopy(model.generation_config)
        ends = self._options.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        self._ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        pads = (self._options.pad_token_id, tokenizer.pad_token_id, *sorted(self._ends), 0)
        self._pad = next(pad for pad in pads if pad is not None)  # masked, so any id will do
        self._options.update(
            **GREEDY,
            max_new_tokens=max_new_tokens,
            pad_token_id=self._pad,
            eos_token_id=sorted(self._ends) or None,
        )
        config = model.config
        self._is_causal = not config.is_encoder_decoder
        self._max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self.settings = {"model": model_digest(model), "chat": chat, "max_new_tokens": max_new_tokens}

    @classmethod
    def open(
        cls, name: str, dtype: str | None, device: torch.device, max_new_tokens: int, chat: bool
    ) -> Self:
        """Load a folder or a hub id; code of the model's own is never run. Raises `UserError`."""
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForSeq2SeqLM,
            AutoTokenizer,
        )

        safe = {"trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(name, **safe)
            auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model = auto.from_pretrained(name, dtype=dtype or "auto", **safe)
            tokenizer = AutoTokenizer.from_pretrained(name, **safe)
        except Exception as error:  # each library beneath raises its own
            raise UserError(
                f"cannot load '{name}' as a text-to-text model of transformers ({first_line(error)[:300]}); expected "
                "an encoder-decoder or a causal language model with its tokenizer and without code of its own"
            ) from error
        model = model.to(device)  # pyright: ignore[reportArgumentType]
        return cls(name, model.eval(), tokenizer, max_new_tokens, chat)

    def find_modality(self, name: str) -> str:
        raise no_media(self._name, name)

    def is_recording(self, name: str) -> bool:
        return False

    @torch.no_grad()
    def answer(self, batch: Sequence[list[Any]]) -> list[Taught]:
        rows = [self._encode("".join(map(str, segments))) for segments in batch]
        ids, mask = (part.to(self._model.device) for part in self._padded(rows))
        output = self._model.generate(input_ids=ids, attention_mask=mask, generation_config=self._options)
        num_new = len(output.logits)
        new = output.sequences[:, output.sequences.shape[1] - num_new :]  # [B, T], without prompt or start
        found = torch.empty(new.shape, dtype=torch.float32)
        for place, logits in enumerate(output.logits):  # one [B, V] at a time: all at once is much memory
            chosen = logits.float().log_softmax(-1).gather(-1, new[:, place, None])
            found[:, place] = chosen[:, 0].cpu()
        return [self._taught(row, values) for row, values in zip(new.tolist(), found.tolist(), strict=True)]

    def _encode(self, text: str) -> list[int]:
        """Return the ids of a prompt. Raises `UserError` if it is empty or too long."""
        if self._chat:
            messages = [{"role": "user", "content": text}]
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = self._tokenizer(text, add_special_tokens=not self._chat)["input_ids"]
        if not ids:
            raise UserError("the prompt is empty, expected text")
        length = len(ids) + (self._options.max_new_tokens if self._is_causal else 0)
        if self._max_positions is not None and length > self._max_positions:
            answer = f" with {self._options.max_new_tokens} for the answer" if self._is_causal else ""
            raise UserError(
                f"the prompt has {len(ids)} tokens{answer}, expected at most {self._max_positions} positions; "
                "shorten it, or lower --max-new-tokens"
            )
        return ids

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return ids and mask [B, S]; a causal model reads on at the right end, so its padding is at the left."""
        longest = max(map(len, rows))
        ids, mask = (
            torch.full((len(rows), longest), self._pad),
            torch.zeros(len(rows), longest, dtype=torch.long),
        )
        for number, row in enumerate(rows):
            place = slice(longest - len(row), None) if self._is_causal else slice(len(row))
            ids[number, place], mask[number, place] = torch.tensor(row), 1
        return ids, mask

    def _taught(self, ids: list[int], log_probabilities: list[float]) -> Taught:
        end = next((place for place, id_ in enumerate(ids) if id_ in self._ends), None)
        count = len(ids) if end is None else end + 1
        text = self._tokenizer.decode(ids[:count], skip_special_tokens=True).strip()
        reason = "length" if end is None else "stop"
        return Taught.of_ids(text, sum(log_probabilities[:count]), count, reason)
