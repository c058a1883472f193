"""Reads the YAML of recipes without YAML's guesses: keys are texts, and the type of an option decides its value.

YAML 1.1 reads the keys `no`, `on`, `1.0`, `012` and `1:30` as a boolean, numbers and a time, and `language: no` as
false. Here a key is the written text, quoted or not. So is a value until the parser knows the type of its option:
`no` is false for a boolean and `no` for a language. Only null is always null.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kebyt5_xm.errors import UserError
from kebyt5_xm.trust import replace_renamed_classes

KeyPath = tuple[str, ...]
"""The keys from the top of a recipe to one of its values."""

_STR = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_NOT_TEXT = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float")}
_TEXT = {_STR, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+")
"""Numbers such as `1e-3` and `1.5e3`, which YAML 1.1 reads as texts: it requires a point and a sign."""


MAX_VALUES = 100_000
"""Values of a recipe with its aliases expanded. Our own choice: nine lines of nested aliases are a billion values."""


class Unquoted(str):
    """The text of a value without quotes that is a number or a boolean in YAML: `1.0`, `no`."""


class _SafeDumper(yaml.SafeDumper):
    """Quotes texts that some readers would read as numbers."""


_SafeDumper.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


class _Dumper(_SafeDumper):
    """Writes an `Unquoted` without quotes, and every other text in quotes."""


def _plain(dumper: yaml.SafeDumper, text: Unquoted) -> yaml.Node:
    tag = dumper.resolve(yaml.ScalarNode, str(text), (True, False))
    return dumper.represent_scalar(tag, str(text))


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar(_STR, text, style='"')


_Dumper.add_representer(Unquoted, _plain)
_Dumper.add_representer(str, _quoted)


def dump(recipe: Mapping[str, Any]) -> str:
    """Return a recipe as YAML that all readers read alike."""
    return yaml.dump(recipe, Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def dump_values(values: Any) -> str:
    """Return native values as YAML for people, such as RUN/config.yaml; all readers read texts as texts."""
    return yaml.dump(
        values, Dumper=_SafeDumper, allow_unicode=True, sort_keys=False, default_flow_style=False
    )


def read(path: str | Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Return a recipe, and key path -> line number, from 1.

    Former class paths are replaced by the present ones (`kebyt5_xm.trust.RENAMED`). Raises `UserError` for a file
    that cannot be read or is not a mapping in YAML, for a key given twice in one mapping, and for a key or a value
    that is not a text, number, list or mapping.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else "check the path after -c"
        raise UserError(f"cannot read the config '{path}': {reason}; {remedy}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(
            f"'{path}'{line} is not YAML: {getattr(error, 'problem', None) or getattr(error, 'reason', error)}; "
            "correct that line"
        ) from error
    except RecursionError as error:
        raise UserError(f"'{path}' is nested too deeply to be read; expected a recipe") from error
    if not isinstance(node, yaml.MappingNode):
        found = "empty" if node is None else f"a {'list' if isinstance(node, yaml.SequenceNode) else 'text'}"
        raise UserError(f"'{path}' is {found}; expected a mapping of model, data and trainer")
    reader = _Reader(str(path))
    return replace_renamed_classes(reader.mapping(node, ())), reader.lines


class _Reader:
    """Converts YAML nodes to values, and records the line of each key."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self._open: list[yaml.Node] = []
        self._count = 0

    def mapping(self, node: yaml.MappingNode, at: KeyPath) -> dict[str, Any]:
        if node in self._open:
            raise self._error(node, "an alias of a block that contains it", "write the block out")
        self._open.append(node)
        if node.tag != "tag:yaml.org,2002:map":
            raise self._error(node, f"the tag {node.tag}", "take it out")
        result: dict[str, Any] = {}
        key_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for merged in self._merged(value_node, at):
                    result = {**merged, **result}
                continue
            key = self._key(key_node)
            if key in key_lines:
                raise UserError(
                    f"'{self.path}' line {key_node.start_mark.line + 1} has the key '{key}' a second time (first in "
                    f"line {key_lines[key]}); expected it once in {'.'.join(at) or 'the file'}: merge the two, or "
                    "take one out"
                )
            key_lines[key] = self.lines[(*at, key)] = key_node.start_mark.line + 1
            result.pop(key, None)  # from `<<`
            result[key] = self._value(value_node, (*at, key))
        self._open.pop()
        return result

    def _merged(self, node: yaml.Node, at: KeyPath) -> Iterator[dict[str, Any]]:
        """Yield the mappings of a `<<`, by descending priority."""
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(item, yaml.MappingNode):
                raise self._error(node, "'<<' with a value that is no mapping", "quote the key")
            yield self.mapping(item, at)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
            raise self._error(
                node, f"a {kind} as a key", "use a text as the key, in quotes if it has brackets"
            )
        # Names in two Unicode forms look alike, but an overlay would not match them.
        return unicodedata.normalize("NFC", node.value)

    def _value(self, node: yaml.Node, at: KeyPath) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._error(node, f"more than {MAX_VALUES} values behind its aliases", "write them out")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            if node in self._open:
                raise self._error(node, "an alias of a block that contains it", "write the list out")
            self._open.append(node)
            items = [self._value(item, (*at, str(number))) for number, item in enumerate(node.value)]
            self._open.pop()
            return items
        assert isinstance(node, yaml.ScalarNode)
        if node.tag == _NULL:
            return None
        if node.tag in _NOT_TEXT or (node.style is None and _EXPONENT.fullmatch(node.value)):
            return Unquoted(node.value)
        if node.tag in _TEXT:
            return node.value
        raise self._error(node, f"the tag {node.tag}", "take it out, and quote the value if it is a text")

    def _error(self, node: yaml.Node, found: str, remedy: str) -> UserError:
        return UserError(f"'{self.path}' line {node.start_mark.line + 1} has {found}; {remedy}")


class _TextKeys(yaml.SafeLoader):
    """Reads values as numbers and booleans, and keys as their written text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        pairs = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        if len(pairs) < len(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "found a key that is no text", node.start_mark
            )
        return {key.value: self.construct_object(value, deep) for key, value in pairs}


_TextKeys.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
_TextKeys.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)
_BARE = re.compile(r"\s*(\{[^:]*\}|[^\s{}:]+:)\s*")
"""Texts that YAML would read as a mapping without values: `{question}`, `Answer:`."""


def load_option(text: str) -> Any:
    """Return the value of an option on the command line, such as `{ko: stores/ko, no: stores/no}`."""
    return text if _BARE.fullmatch(text) else yaml.load(text, Loader=_TextKeys)


def to_native(value: Any) -> Any:
    """Return a value of a recipe with its unquoted texts as numbers and booleans."""
    if isinstance(value, Mapping):
        return {key: to_native(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_native(item) for item in value]
    if not isinstance(value, Unquoted):
        return value
    return float(value) if _EXPONENT.fullmatch(value) else yaml.safe_load(value)
