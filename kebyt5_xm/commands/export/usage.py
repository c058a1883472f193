"""The Python of a model card: how to load the model, and to answer a prompt of the run.

The code for a text model needs transformers alone and no tokenizer, since ids are byte + 3.
"""

import json
import keyword
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kebyt5_xm.commands.export.sources import SourceFacts
from kebyt5_xm.trust import TRUSTED
from kebyt5_xm.vocabulary import sentinel_ids

if TYPE_CHECKING:
    from kebyt5_xm.model.cross_modal import CrossModalT5

LOAD_TEXT = """import torch
from transformers import T5ForConditionalGeneration

folder = "."  # this folder, or the hub id under which it was published
model = T5ForConditionalGeneration.from_pretrained(folder).eval()
"""

LOAD_LORA = """import torch
from peft import PeftModel
from transformers import T5ForConditionalGeneration

folder = "."  # this folder, or the hub id under which it was published
model = T5ForConditionalGeneration.from_pretrained(folder)
model = PeftModel.from_pretrained(model, folder, subfolder="lora").eval()  # the weights alone are not the model
"""

GENERATE = """

def generate(ids, max_length):
    input_ids = torch.tensor([[*ids, 1]])  # 1 ends a sequence
    output = model.generate(input_ids=input_ids, max_new_tokens=max_length, do_sample=False)[0].tolist()
    return output[1:]  # the first id only starts the decoder
"""

RESTORE = """

def sentinel(n):
    return SENTINEL


def restore(pieces, max_length=64):
    \"\"\"Return what the model puts into the gaps between `pieces`.\"\"\"
    ids = []
    for n, piece in enumerate(pieces):
        ids += ([sentinel(n - 1)] if n else []) + [byte + 3 for byte in piece.encode()]
    spans = []
    for number in generate(ids, max_length):
        if number == 1:
            break
        if number == sentinel(len(spans)):
            spans.append(bytearray())
        elif spans and 3 <= number < 259:
            spans[-1].append(number - 3)
    return [span.decode(errors="replace") for span in spans]


print(restore(["대한민국의 수도는 ", "이고, 한강이 ", "."]))
"""
"""For any engine whose code has `generate`, as `ANSWER`."""

ANSWER = """

def answer(prompt, max_length=256):
    output = generate([byte + 3 for byte in prompt.encode()], max_length)
    return bytes(number - 3 for number in output if 3 <= number < 259).decode(errors="replace")

"""

EXAMPLE_ANSWER = '\nprint(answer("안녕하세요"))\n'

LOAD_CROSS_MODAL = """from kebyt5_xm.model import CrossModalT5

model = CrossModalT5.from_pretrained("."TRUST)  # this folder, or the hub id under which it was published
"""

FILL = """
from kebyt5_xm.model.infilling import Gaps

print(model.fill(Gaps(["대한민국의 수도는 ", "이고, 한강이 ", "."])).text)
"""
"""Restores removed spans with a text model that is no plain T5."""

EXAMPLE_FILES = {"image": "a.png", "audio": "b.wav", "array": "c.npy"}
"""Kind of media -> the file that stands for one."""


def text_code(denoising: Mapping[str, Any], sources: Sequence[SourceFacts], lora_apart: bool) -> str:
    """Return the code for a text model: it restores spans if it was trained to, and answers the run's prompts."""
    code = (LOAD_LORA if lora_apart else LOAD_TEXT) + GENERATE
    prompts = [source.prompt for source in sources if source.prompt is not None]
    if denoising:
        code += restoring_code(denoising)
    if not prompts:
        return code if denoising else code + ANSWER + EXAMPLE_ANSWER
    source = next(source for source in sources if source.prompt is prompts[0])
    return f"{code}{ANSWER}\n{_variables(source)}print(answer({_text(prompts[0].pieces())}))\n"


def restoring_code(denoising: Mapping[str, Any]) -> str:
    """Return the code that restores removed spans."""
    return RESTORE.replace("SENTINEL", sentinel_formula(denoising))


def sentinel_formula(denoising: Mapping[str, Any]) -> str:
    """Return the id of the n-th removed span, counted from 0, as Python."""
    first, second = (int(number) for number in sentinel_ids(denoising["sentinels"], 2))
    return f"{first} {'-' if second < first else '+'} n"


def cross_modal_code(model: "CrossModalT5", sources: Sequence[SourceFacts]) -> str:
    """Return the code for a model with modalities: it answers the prompt of every source that feeds one."""
    kinds = {name: model.modality(name).encoder.media for name in model.modalities}
    foreign = foreign_packages(model.config.modalities)
    code = LOAD_CROSS_MODAL.replace("TRUST", f", trusted_modules={foreign}" if foreign else "")
    if not kinds:  # a text model with a delete gate
        prompts = [source for source in sources if source.prompt is not None]
        for source in prompts:
            code += f"\n# {source.name}\n{_variables(source)}print(model.answer([{_segments(source, {})}]))\n"
        return code if prompts else code + FILL
    examples = [source for source in sources if source.modalities and set(source.modalities) <= kinds.keys()]
    if not examples:
        segments = ", ".join(
            _segment(name, f'Path("{EXAMPLE_FILES[kind]}")', kinds) for name, kind in kinds.items()
        )
        return (
            f'from pathlib import Path\n\n{code}\nprint(model.answer([{segments}, "text as in training"]))\n'
        )
    for source in examples:
        code += f"\n# {source.name}\n{_variables(source, kinds)}"
        labels = "" if source.labels is None else f", labels={source.labels!r}"
        code += f"print(model.answer([{_segments(source, kinds)}]{labels}))\n"
    return f"from pathlib import Path\n\n{code}"


def foreign_packages(specs: Mapping[str, Any]) -> list[str]:
    """Return the packages, besides this project's own, that the classes of modalities come from."""
    packages = {part["class_path"].partition(".")[0] for spec in specs.values() for part in spec.values()}
    return sorted(packages - set(TRUSTED))


# -- prompts as Python -----------------------------------------------------------------------------------------


def _variables(source: SourceFacts, kinds: Mapping[str, str] | None = None) -> str:
    """Return assignments of an example to every column of a prompt."""
    assert source.prompt is not None
    lines = {}
    for piece in source.prompt.pieces():
        if isinstance(piece, str):
            continue
        column, modality = piece
        if modality is not None:
            file = EXAMPLE_FILES[(kinds or {}).get(modality, "image")]
            lines[column] = f'{_identifier(column)} = Path("{file}")'
            continue
        values = [json.dumps(value, ensure_ascii=False) for value in source.values.get(column, ())]
        others = f"  # or {', '.join(values[1:])}" if len(values) > 1 else ""
        example = values[0] if values else '"..."'
        lines.setdefault(column, f"{_identifier(column)} = {example}{others}")
    return "".join(f"{line}\n" for line in lines.values())


def _segments(source: SourceFacts, kinds: Mapping[str, str]) -> str:
    """Return a prompt as the segments of `answer`, texts joined."""
    assert source.prompt is not None
    segments: list[str] = []
    text: list[Any] = []
    for piece in [*source.prompt.pieces(), None]:
        if piece is None or (isinstance(piece, tuple) and piece[1] is not None):
            segments += [_text(text)] if text else []
            text = []
            if piece is not None:
                segments.append(_segment(str(piece[1]), _identifier(piece[0]), kinds))
        else:
            text.append(piece)
    return ", ".join(segments)


def _segment(modality: str, item: str, kinds: Mapping[str, str]) -> str:
    """Return a medium, with its modality where several take its kind."""
    alone = list(kinds.values()).count(kinds[modality]) == 1
    return item if alone else f'("{modality}", {item})'


def _text(pieces: Sequence[Any]) -> str:
    """Return the texts and columns of a prompt as a string literal, an f-string if it has columns."""
    is_plain = all(isinstance(piece, str) for piece in pieces)
    parts = []
    for piece in pieces:
        if isinstance(piece, str):
            literal = json.dumps(piece, ensure_ascii=False)[1:-1]
            parts.append(literal if is_plain else literal.replace("{", "{{").replace("}", "}}"))
        else:
            parts.append(f"{{{_identifier(piece[0])}}}")
    return f'{"" if is_plain else "f"}"{"".join(parts)}"'


def _identifier(column: str) -> str:
    """Return a column's name as a Python name."""
    name = "".join(letter if letter.isalnum() else "_" for letter in column)
    is_taken = keyword.iskeyword(name) or name in (
        "model",
        "torch",
        "folder",
        "generate",
        "sentinel",
        "answer",
        "restore",
        "print",
        "Path",
    )
    return f"column_{name}" if is_taken or not name.isidentifier() else name
