"""Checks files, keys, class paths and options of recipes before the slow imports; errors name file and line.

Torch, transformers and Lightning take ten seconds and more to import; an error for a misspelt key should not. The
parser finds the other errors later, such as a value of the wrong type.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.training import recipes, signatures, trainer_options
from kebyt5_xm.training.recipe_yaml import KeyPath, read, to_native

TOP = (
    "seed_everything",
    "trainer",
    "model",
    "data",
    "run_dir",
    "checkpoint_every",
    "max_bad_steps",
    "monitor",
    "report",
    "profile",
    "forgetting",
    "ema",
    "ckpt_path",
    "weights_only",
)
"""The top-level keys of a recipe; a test compares them with the parser."""

BLOCKS: dict[tuple[str, ...], str] = {
    ("model",): "kebyt5_xm.training.task.Task",
    ("model", "backbone"): "kebyt5_xm.model.backbone.Backbone",
    ("model", "modalities", "*"): "kebyt5_xm.model.modality.Modality",
    ("model", "modalities", "*", "ctc"): "kebyt5_xm.model.ctc.CTC",
    ("model", "modalities", "*", "dropout"): "kebyt5_xm.model.slot_dropout.SlotDropout",
    ("model", "groups", "*"): "kebyt5_xm.training.groups.Group",
    ("model", "delete_gate"): "kebyt5_xm.model.delete_gate.DeleteGate",
    ("model", "draft_heads"): "kebyt5_xm.model.draft_heads.DraftHeads",
    ("model", "lora", "*"): "kebyt5_xm.model.lora.LoRA",
    ("data",): "kebyt5_xm.data.datamodule.DataModule",
    ("data", "budget"): "kebyt5_xm.data.order.steps.Budget",
    ("data", "sources", "*", "init_args", "limits"): "kebyt5_xm.data.media.reference.Limits",
    ("forgetting",): "kebyt5_xm.training.callbacks.forgetting.Forgetting",
    ("ema",): "kebyt5_xm.training.callbacks.averaging.Ema",
    ("trainer",): "lightning.pytorch.trainer.trainer.Trainer",
}
"""Blocks without a `class_path` -> the class whose arguments they hold."""

CLASSES = (
    ("model", "modalities", "*", "encoder"),
    ("model", "modalities", "*", "adapter"),
    ("model", "optimizer"),
    ("model", "schedule"),
    ("data", "sources", "*"),
)
"""Blocks that must have a `class_path`."""

EXTRAS = {"torchvision": "image", "timm": "image", "torchaudio": "audio", "peft": "finetune"}
"""Package of optional classes -> the extra that installs it."""

_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


def check(paths: Sequence[str]) -> None:
    """Raise `UserError` for the first error in the merged recipes at `paths`, with file and line."""
    merged = recipes.merge(list(paths))
    for at, problem in _find_problems(merged, ()):
        raise UserError(f"{locate(paths, at)}{problem}")
    trainer = merged.get("trainer")
    if isinstance(trainer, dict):
        try:
            trainer_options.check(to_native(trainer), is_complete=False)
        except UserError as error:
            named = re.search(r"trainer\.(\w+)", str(error))
            at = ("trainer", named[1]) if named and named[1] in trainer else ("trainer",)
            raise UserError(f"{locate(paths, at)}{error}") from error


def check_arguments(args: Sequence[str]) -> None:
    """Check the recipes and the names of the options in the arguments of `train.py` in the same way."""
    if args[:1] not in (["fit"], ["validate"]):
        return
    paths, rest = split_config_paths(split_trusted(args)[1])
    if paths:
        check(paths)
    for word in rest:
        if word.startswith("--"):
            keys = tuple(word[2:].partition("=")[0].removesuffix("+").split("."))
            _check_option(keys)


def _check_option(keys: KeyPath) -> None:
    known, owner = (*TOP, "help", "print_config"), "train.py"
    for at in ((), *(keys[:number] for number in range(1, len(keys)))):
        if at:
            owner = BLOCKS.get(at, "")
            known = (*(signatures.read_options(owner) or ()), "help")
        if owner and keys[len(at)] not in known:
            near = did_you_mean(keys[len(at)], known) or (
                _suggest_place(keys[len(at)]) if len(at) < 2 else ""
            )
            name = owner.rpartition(".")[2] if at else owner
            raise UserError(f"option --{'.'.join(keys)}: '{keys[len(at)]}' is not accepted by {name}{near}")


def split_config_paths(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of all `-c` and `--config` in the arguments of `train.py`, and the other arguments."""
    return _split_options(args, ("-c", "--config"))


def split_trusted(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of all `--trust`, and the other arguments."""
    return _split_options(args, ("--trust",))


def _split_options(args: Sequence[str], options: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the values of `options`, given as `--option value` or `--option=value`, and the other arguments."""
    values, rest = [], []
    remaining = iter(args)
    for word in remaining:
        option, equals, value = word.partition("=")
        if option in options:
            value = value if equals else next(remaining, "")
            if not value:
                raise UserError(f"found {option} without a value; expected one after it")
            values.append(value)
        else:
            rest.append(word)
    return values, rest


def locate(paths: Sequence[str], at: KeyPath) -> str:
    """Return `FILE line N: KEY.PATH: ` for the last file that has the key, or `KEY.PATH: ` if none has."""
    key = f"{'.'.join(at)}: "
    for path in reversed(paths):
        line = read(path)[1].get(at)
        if line is not None:
            return f"{path} line {line}: {key}"
    return key


def locate_value(paths: Sequence[str], key: str, value: str | None) -> str:
    """Return the place of the only key path that ends in `key` and has `value`, if given; "" for none or several."""
    ending = tuple(key.split("."))
    found = [
        at
        for at, item in _leaves(recipes.merge(list(paths)), ())
        if at[-len(ending) :] == ending and (value is None or value in (str(item), str(to_native(item))))
    ]
    return locate(paths, found[0]) if len(found) == 1 else ""


def _leaves(value: Any, at: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    yield at, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*at, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, (*at, str(number)))


def _find_problems(value: Any, at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if not isinstance(value, dict):
        mappings = (*BLOCKS, *(name for name in recipes.NAMED if "*" not in name))
        is_wrong = value is not None and recipes.matches(at, mappings)
        if is_wrong or at in (("model",), ("data",)):
            yield at, f"found {to_native(value)!r}, expected a mapping, with `key: value` on every line"
        for number, item in enumerate(value if isinstance(value, list) else ()):
            yield from _find_problems(item, (*at, str(number)))
        return
    yield from _check_keys(value, at)
    for key, item in value.items():
        yield from _find_problems(item, (*at, key))


def _check_keys(block: dict[str, Any], at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield the unknown keys of one mapping, and a `class_path` that cannot be imported."""
    if not at:
        yield from _unknown_keys(block, at, TOP, "a recipe")
        return
    class_path = block.get("class_path")
    if isinstance(class_path, str) and "." in class_path:
        yield from _check_class(block, at, class_path)
    elif recipes.matches(at, CLASSES):
        if class_path is None and (near := [k for k in block if did_you_mean(k, ["class_path"])]):
            yield (*at, near[0]), f"there is no '{near[0]}'; did you mean 'class_path'?"
    else:
        for pattern, owner in BLOCKS.items():
            if recipes.matches(at, [pattern]) and (known := signatures.read_options(owner)) is not None:
                yield from _unknown_keys(block, at, known, owner.rpartition(".")[2])


def _check_class(block: dict[str, Any], at: KeyPath, class_path: str) -> Iterator[tuple[KeyPath, str]]:
    yield from _unknown_keys(block, at, _CLASS_KEYS, "a class and its arguments")
    if absent := signatures.find_missing(class_path):
        near = did_you_mean(absent.name, absent.known) if absent.name else ""
        remedy = near or suggest_install(class_path)
        yield (*at, "class_path"), f"cannot import {class_path}: {absent.cause}{remedy}"
    known = signatures.read_options(class_path)
    if known is not None and isinstance(block.get("init_args"), dict):
        yield from _unknown_keys(block["init_args"], (*at, "init_args"), known, class_path.rpartition(".")[2])


def suggest_install(class_path: str) -> str:
    """Return the remedy for a class whose package is not installed."""
    extra = EXTRAS.get(class_path.partition(".")[0])
    if extra is not None:
        return f"; run: pip install 'kebyt5-xm[{extra}]'"
    return "; install the package that it is in, or correct the class_path"


def _unknown_keys(
    block: dict[str, Any], at: KeyPath, known: Sequence[str], owner: str
) -> Iterator[tuple[KeyPath, str]]:
    for key in block:
        if key.partition(".")[0] not in known:
            near = (
                did_you_mean(key, known)
                or (_suggest_place(key) if len(at) < 2 else "")
                or f"; expected {', '.join(known) or 'nothing, it has no options'}"
            )
            yield (*at, key), f"Option '{key}' is not accepted by {owner}{near}"


def _suggest_place(key: str) -> str:
    """Return a suggestion for a key that belongs into another block, or an empty string."""
    homes = {
        option: ".".join((*at, option))
        for at, owner in BLOCKS.items()
        if "*" not in at
        for option in signatures.read_options(owner) or ()
    }
    near = difflib.get_close_matches(key, homes, n=1)
    return f"; did you mean '{homes[near[0]]}'?" if near else ""
