"""Command-line errors of `train.py`: one line, with the wrong name and the nearest known one."""

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import set_dumper, set_loader
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.training.recipe_check import locate_value, suggest_install
from kebyt5_xm.training.recipe_yaml import dump_values, load_option

# jsonargparse 4.53 writes the text `1e3` without quotes, in RUN/config.yaml too, and then reads it as a number.
set_dumper("yaml", dump_values)
# It also reads the key `no` as false.
set_loader("yaml", load_option, (yaml.YAMLError,))


def _read_number(value: Any) -> Number:
    if not isinstance(value, Number):
        raise TypeError(f"{value!r} is no number")
    return value


# torchvision's transforms take `int | Sequence[int]`, which is annotated as Number: jsonargparse reads it, but cannot
# write it into RUN/config.yaml.
register_type(Number, serializer=lambda value: value, deserializer=_read_number, type_check=isinstance)

# Messages of jsonargparse 4.53 and argparse.
_UNKNOWN = re.compile(
    r"unrecognized arguments: --(?P<argument>[^\s=]+)"
    r"|Option '(?P<option>[^']+)' is not accepted"
    r"|does not accept option '(?P<nested>[^']+)'"
)
_CHOICES = re.compile(r"Literal\[(?P<choices>[^\]]+)\].*(?:Got|Given) value: (?P<value>\S+)", re.DOTALL)
_NO_CLASS = re.compile(
    r"callable class: (?P<cause>No module named '[^']+'"
    r"|module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)')"
    r".*class_path='(?P<class_path>[^']+)'",
    re.DOTALL,
)
_NO_CLASS_WITHIN = re.compile(
    r"Problem with given class_path '(?P<class_path>[^']+)':\s*(?P<cause>No module named '[^']+'"
    r"|module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)')",
)
"""The same for a class within a list or a union."""
_DENIED = re.compile(r"Importing '(?P<path>[^']+)' is not allowed")
"""The recipe of a run names a class that is not trusted; see `kebyt5_xm.trust`."""
_CLASS_PATH = re.compile(r"class_path '([^']+)'")


_KEY = re.compile(r'Parser key "([^"]+)"')
_VALUE = re.compile(r"(?:Got value|Given value): (?P<value>.*?)\s*$")
_UNION = re.compile(r"Does not validate against any of the Union subtypes.*", re.DOTALL)
_WRONG = re.compile(r"Expected an? (?:<class '[^']+'>|typing\.Literal\[[^\]]*\])\. Got value: .*$", re.DOTALL)
_EXPECTED = re.compile(r"Expected (?:an? )?(.+?)(?:\. Got value.*)?$", re.MULTILINE)
_NOT_TEXT = re.compile(r"(True|False|[-+.0-9]+)$")


class Parser(LightningArgumentParser):
    """Accepts only full names of options, and prints errors in one line, with their place in a recipe."""

    recipes: Mapping[str, str] = {}
    """The recipes that are parsed: absolute path -> path as given. jsonargparse parses in other folders."""

    @classmethod
    def of(cls, recipes: Sequence[str]) -> "type[Parser]":
        """Return a parser class for these recipes, which errors name."""
        return type(cls.__name__, (cls,), {"recipes": {str(Path(path).absolute()): path for path in recipes}})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # `--model.backbone.siz small` is a mistake, not a short form.
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        place, line = self._place(message), explain(message, self._names())
        if place:  # it has the whole path of the key
            line = line.removeprefix(f'Parser key "{(_KEY.findall(message) or [""])[-1]}"; ')
        print(f"error: {place}{line}", file=sys.stderr)
        raise SystemExit(2)

    def _place(self, message: str) -> str:
        """Return file, line and key path of the error, if exactly one key of the recipes matches the message."""
        value = _VALUE.search(message)
        key = (_KEY.findall(message) or [None])[-1]
        if unknown := _UNKNOWN.search(message):
            key, value = next(word for word in unknown.groups() if word), None
        try:
            place = locate_value(list(self.recipes), key, value and value["value"]) if key else ""
        except UserError:
            return ""
        path = next((path for path in self.recipes if place.startswith(path)), "")
        return self.recipes.get(path, "") + place.removeprefix(path)

    def _names(self) -> set[str]:
        """Return the options of this parser and its subcommands, and the words within them."""
        names: set[str] = set()
        subcommands = self._subcommands_action
        parsers = [self, *(subcommands._name_parser_map.values() if subcommands else [])]
        for parser in parsers:
            for action in parser._actions:
                names.add(action.dest)
                names.update(action.dest.split("."))
        return names


def explain(message: str, names: set[str]) -> str:
    """Return a parser's message as one line, with the nearest known name after an unknown one."""
    if denied := _DENIED.search(message):
        package = denied["path"].partition(".")[0]
        return (
            f"a run's recipe names '{denied['path']}', and '{package}' is not trusted, so it was not imported; if "
            f"you trust its code, give --trust {package}"
        )
    line = _in_one_line(message)
    if choice := _CHOICES.search(message):
        return line + did_you_mean(choice["value"], re.findall(r"'([^']+)'", choice["choices"]))
    if failed := _NO_CLASS.search(message) or _NO_CLASS_WITHIN.search(message):
        near = did_you_mean(failed["name"], dir(sys.modules.get(failed["module"]))) if failed["name"] else ""
        remedy = near or suggest_install(failed["class_path"])
        return f"cannot import {failed['class_path']}: {failed['cause']}{remedy}"
    found = _UNKNOWN.search(message)
    if not found:
        return line
    word = next(value for value in found.groups() if value)
    for class_path in _CLASS_PATH.findall(message):
        module, _, name = class_path.rpartition(".")
        try:  # only modules that the parser has imported: it may have refused others
            names = names | set(inspect.signature(getattr(sys.modules[module], name)).parameters)
        except (KeyError, AttributeError, TypeError, ValueError):
            continue
    return line + (did_you_mean(word, names) or did_you_mean(word.split(".")[-1], names))


def _in_one_line(message: str) -> str:
    """Return a message in one line; for a value of the wrong type, only the expected types and the value."""
    value = _VALUE.search(message)
    wrong = _UNION.search(message) or _WRONG.search(message)
    kinds = [kind for kind in _EXPECTED.findall(wrong[0]) if "NoneType" not in kind] if wrong else []
    if wrong and value and kinds:
        kinds = [re.sub(r"<class '([\w.]+)'>", r"\1", kind) for kind in dict.fromkeys(kinds)]
        quote = "; quote it for a text" if "str" in kinds and _NOT_TEXT.match(value["value"]) else ""
        message = message[: wrong.start()] + f"expected {' or '.join(kinds)}, found {value['value']}{quote}"
    return "; ".join(part.strip().removesuffix(":") for part in message.splitlines() if part.strip())
