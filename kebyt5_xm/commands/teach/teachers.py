"""The teacher that is a model of this project, and how a teacher is opened."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

import torch

from kebyt5_xm.commands.generate import find_modality
from kebyt5_xm.commands.generate.output import model_digest
from kebyt5_xm.commands.teach import DTYPES
from kebyt5_xm.commands.teach.question import Question
from kebyt5_xm.commands.teach.teacher import Taught, Teacher, no_media
from kebyt5_xm.commands.teach.transformers_teacher import TransformersTeacher
from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.pretrained import RunBackbone, open_pretrained
from kebyt5_xm.weight_files import CROSS_MODAL


class OurTeacher:
    """A run or an export of this project, or a byte-level T5 of transformers."""

    def __init__(self, model: CrossModalT5, labels: Sequence[str], max_new_tokens: int) -> None:
        self._model, self._labels, self._max_new_tokens = model, list(labels), max_new_tokens
        self.settings = {
            "model": model_digest(model),
            "labels": self._labels,
            "max_new_tokens": max_new_tokens,
        }

    def find_modality(self, name: str) -> str:
        return find_modality(self._model, name)

    def is_recording(self, name: str) -> bool:
        return self._model.processor.interfaces[self.find_modality(name)].media == "audio"

    def answer(self, batch: Sequence[list[Any]]) -> list[Taught]:
        if self._labels:
            found = self._model.classify(list(batch), self._labels)
            assert isinstance(found, list)
            return [_chosen(probabilities) for probabilities in found]
        options: dict[str, Any] = {"temperature": 0, "num_beams": 1, "max_new_tokens": self._max_new_tokens}
        answers = self._model.answer(list(batch), details=True, **options)
        return [
            Taught.of_ids(answer.text, answer.log_probability, len(answer.ids), answer.finish_reason)
            for answer in answers
        ]


def _chosen(probabilities: dict[str, float]) -> Taught:
    label = max(probabilities, key=lambda name: probabilities[name])
    probability = probabilities[label]
    return Taught(label, probability, math.log(probability), None, "stop")


def open_teacher(args: argparse.Namespace, question: Question, device: torch.device) -> Teacher:
    """Return the model of `kebyt5-xm teach` on `device`. Raises `UserError` if it cannot be loaded.

    A model that `kebyt5-xm generate` loads is one of ours, a byte-level T5 included; any other is transformers'.
    """
    dtype = DTYPES.get(args.dtype)
    if _is_ours(args.model):
        if args.chat:
            raise UserError(
                f"found --chat with '{args.model}', which has no chat template; write the prompt as in training"
            )
        model = CrossModalT5.from_pretrained(args.model, trusted_modules=args.trust, dtype=dtype)
        model = model.to(device)  # pyright: ignore[reportArgumentType]
        return OurTeacher(model, question.labels, args.max_new_tokens)
    for name in Template(question.prompt).modalities:
        raise no_media(args.model, name)
    if question.labels:
        raise UserError(
            f"found labels for '{args.model}', which writes text; name them in the prompt, and let `kebyt5-xm select "
            "--label` drop other answers"
        )
    return TransformersTeacher.open(args.model, dtype, device, args.max_new_tokens, args.chat)


def _is_ours(name: str) -> bool:
    opened = open_pretrained(name)
    if isinstance(opened, RunBackbone):
        return True
    content = opened.content
    is_byte_level = content.get("model_type") == "t5" and content.get("tokenizer_class") == "ByT5Tokenizer"
    return content.get("model_type") == CROSS_MODAL or is_byte_level
