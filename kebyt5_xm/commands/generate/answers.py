"""One answer of `kebyt5-xm generate`, as plain values and as it is printed."""

import argparse
import json
from typing import Any

import torch

from kebyt5_xm.model.cross_modal import CrossModalT5


def search_options(args: argparse.Namespace, device: torch.device, number: int = 0) -> dict[str, Any]:
    """Return the arguments of `CrossModalT5.answer`; `number`, of the first input of a batch, varies the seed."""
    options: dict[str, Any] = {"max_new_tokens": args.max_length, "n": args.n}
    if args.temperature:
        options["temperature"] = args.temperature
        if args.seed is not None:
            options["generator"] = torch.Generator(device).manual_seed(args.seed + number)
    else:
        options |= {"temperature": 0, "num_beams": args.num_beams or 1}
    return options


def describe_answers(
    model: CrossModalT5, batch: list[list[Any]], args: argparse.Namespace, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the answer to each list of segments as plain values.

    With labels: `answer` and `probabilities`. Else `answer`, or `answers` for --n above 1; with --json each of them
    is an object of `Hypothesis.as_dict`, the fields of a single one beside `answer`.
    """
    if args.label:
        found = model.classify(batch, args.label)
        assert isinstance(found, list)
        return [{"answer": max(row, key=lambda label: row[label]), "probabilities": row} for row in found]
    answers = model.answer(batch, details=args.json, **options)
    if args.n > 1:
        return [
            {"answers": [answer.as_dict() if args.json else answer for answer in group]} for group in answers
        ]
    if not args.json:
        return [{"answer": answer} for answer in answers]
    fields = [answer.as_dict() for answer in answers]
    return [{"answer": row.pop("text"), **row} for row in fields]


def print_answer(
    model: CrossModalT5, segments: list[Any], args: argparse.Namespace, stream: bool = False
) -> None:
    """Print the answer to segments, piece by piece with --stream or `stream`."""
    options = search_options(args, model.device)
    if args.stream or (stream and not args.json and not args.label and args.n == 1 and not args.num_beams):
        for piece in model.answer(segments, stream=True, **options):
            print(piece, end="", flush=True)
        print()
        return
    (found,) = describe_answers(model, [segments], args, options)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
    elif args.label:
        for label, probability in sorted(found["probabilities"].items(), key=lambda item: -item[1]):
            print(f"{probability:.4f}  {label}")
    else:
        for answer in found.get("answers") or [found["answer"]]:
            print(answer)
