"""`kebyt5-xm export --format ctranslate2`: a text model as a folder that CTranslate2 loads, without torch.

    OUT/model.bin  OUT/config.json  OUT/shared_vocabulary.json  OUT/README.md

The export for transformers is written first, to a temporary folder, and CTranslate2's own converter reads it. The
cards are those of that export, with CTranslate2's code instead of transformers'. Draft heads are left out.

On x86 processors without VNNI, int8 is right only with `CT2_USE_MKL=1`, which the card's code sets. On AMD,
CTranslate2 (4.8.5) chooses oneDNN, whose sums overflow there: of the bytes of 40 answers of the demo's text model,
17 % were those of float32, and 99 % with MKL.
"""

import importlib.util
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from kebyt5_xm.commands.export.output_folder import atomic_folder, check_output_folder
from kebyt5_xm.commands.export.usage import ANSWER, EXAMPLE_ANSWER, restoring_code
from kebyt5_xm.errors import UserError, first_line
from kebyt5_xm.model.delete_gate_files import refuse_gate, run_gate
from kebyt5_xm.model.origin import copy_terms
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.weight_files import ABOUT

Quantization = Literal["float32", "bfloat16", "int8"]

LOAD = """import json
import os
import platform
from pathlib import Path

if platform.machine() in ("x86_64", "AMD64"):  # oneDNN, which would multiply on AMD, errs in int8 without VNNI
    os.environ.setdefault("CT2_USE_MKL", "1")
import ctranslate2

folder = Path(".")  # this folder, or one that `hf download` made
translator = ctranslate2.Translator(str(folder))  # device="cuda" for a GPU
tokens = json.loads((folder / "shared_vocabulary.json").read_text(encoding="utf-8"))
numbers = {token: number for number, token in enumerate(tokens)}


def generate(ids, max_length):
    source = [tokens[number] for number in [*ids, 1]]  # 1 ends a sequence
    result = translator.translate_batch([source], beam_size=1, max_input_length=0, max_decoding_length=max_length)
    return [numbers[token] for token in result[0].hypotheses[0]]
"""

INTRODUCTIONS = {
    "README.md": "It needs `ctranslate2`, and neither torch nor transformers. The weights are stored in {dtype}; "
    "the argument `compute_type` of `Translator` converts them on loading.",
    "README.ko.md": "`ctranslate2`가 필요하고, torch와 transformers는 필요 없다. 가중치는 {dtype}로 저장되어 있고, "
    "`Translator`의 `compute_type`이 읽을 때 바꾼다.",
}
"""File of a card -> the words before its code."""

_CODE_SECTION = re.compile(
    r"(^## [^\n]*\n\n)(?:(?!^## ).)*?^```python\n.*?(?=^## )", re.DOTALL | re.MULTILINE
)
"""The first section of a card with Python code; group 1 is its heading."""

_LIBRARY = re.compile(r"^library_name: .*$", re.MULTILINE)


def check_convertible(run: Run, lora_apart: bool) -> None:
    """Raise `UserError` unless the run's model can be converted here, before its weights are read."""
    modalities = (run.config.get("model") or {}).get("modalities")
    if modalities:
        raise UserError(
            f"found a run with modalities ({', '.join(modalities)}), expected a text model: CTranslate2 reads text "
            "alone; export it with --format transformers"
        )
    refuse_gate(run_gate(run), f"the model of '{run.path}'", "export it with --format transformers")
    if lora_apart:
        raise UserError(
            "found --lora apart with --format ctranslate2, expected --lora merged: its format has no LoRA"
        )
    if importlib.util.find_spec("ctranslate2") is None:
        raise UserError("--format ctranslate2 needs ctranslate2; install 'kebyt5-xm[ctranslate2]'")


def export_ctranslate2(
    write: Callable[[Path], None], out: Path, overwrite: bool, dtype: Quantization = "float32"
) -> None:
    """Convert the export that `write` writes into the folder it is given, and write the result to `out`.

    `dtype` is that of the stored weights; int8 has a scale for every output of a layer. Raises `UserError` if `out`
    must not be written, or if CTranslate2 cannot convert the model.
    """
    check_output_folder(out, overwrite)
    with TemporaryDirectory() as temporary:
        export = Path(temporary) / out.resolve().name
        write(export)
        with atomic_folder(out, overwrite) as folder:
            _convert(export, folder, dtype)
            about = json.loads((export / "config.json").read_text(encoding="utf-8"))[ABOUT]
            _add_to_json(folder / "config.json", {ABOUT: {**about, "format": "ctranslate2", "dtype": dtype}})
            for name, introduction in INTRODUCTIONS.items():
                if (export / name).is_file():
                    card = (export / name).read_text(encoding="utf-8")
                    own = _card(card, introduction.format(dtype=dtype), about["denoising"])
                    (folder / name).write_text(own, encoding="utf-8")
            copy_terms(export, folder)


def example_code(denoising: Mapping[str, Any]) -> str:
    """Return Python that loads the folder and restores text, or answers if the model was not trained to restore."""
    return LOAD + (restoring_code(denoising) if denoising else ANSWER + EXAMPLE_ANSWER)


def _card(card: str, introduction: str, denoising: Mapping[str, Any]) -> str:
    """Return a card with this format's library and code in the place of transformers'."""
    section = f"{introduction}\n\n```python\n{example_code(denoising)}```\n\n"
    card, count = _CODE_SECTION.subn(lambda found: found[1] + section, card, count=1)
    assert count == 1, "the card has no section with Python code"
    return _LIBRARY.sub("library_name: ctranslate2", card, count=1)


def _convert(export: Path, folder: Path, dtype: Quantization) -> None:
    from ctranslate2.converters import TransformersConverter

    with _without_messages():
        try:
            TransformersConverter(str(export)).convert(str(folder), quantization=dtype, force=True)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"CTranslate2 cannot convert the model: {first_line(error)}") from error


def _add_to_json(path: Path, added: Mapping[str, Any]) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **added}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _without_messages() -> Iterator[None]:
    """Silence transformers, which advises to tie an output layer that is trained apart, and its progress bar."""
    from transformers.utils import logging as messages

    level, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity(logging.ERROR)
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bars:
            messages.enable_progress_bar()
