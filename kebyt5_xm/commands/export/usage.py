"""What a model card says about using the model: uses and limits, its modalities, and Python to start with.

The code for a text model needs transformers alone and no tokenizer, since ids are byte + 3.
"""

from typing import TYPE_CHECKING, Any

from kebyt5_xm.vocabulary import sentinel_ids

if TYPE_CHECKING:
    from kebyt5_xm.model.cross_modal import CrossModalT5

RESTORE = """```python
import torch
from transformers import T5ForConditionalGeneration

folder = "."  # this folder, or the hub id under which it was published
model = T5ForConditionalGeneration.from_pretrained(folder).eval()


def sentinel(n):
    return SENTINEL


def restore(pieces, max_new_tokens=64):
    \"\"\"Return what the model puts into the gaps between `pieces`.\"\"\"
    ids = []
    for n, piece in enumerate(pieces):
        ids += ([sentinel(n - 1)] if n else []) + [byte + 3 for byte in piece.encode()]
    input_ids = torch.tensor([ids + [1]])  # 1 ends a sequence
    output = model.generate(input_ids, max_new_tokens=max_new_tokens, do_sample=False)[0].tolist()
    spans = []
    for number in output[1:]:  # the first id only starts the decoder
        if number == 1:
            break
        if number == sentinel(len(spans)):
            spans.append(bytearray())
        elif spans and 3 <= number < 259:
            spans[-1].append(number - 3)
    return [span.decode(errors="replace") for span in spans]


print(restore(["대한민국의 수도는 ", "이고, 한강이 ", "."]))
```"""

PLAIN = """```python
import torch
from transformers import T5ForConditionalGeneration

folder = "."  # this folder, or the hub id under which it was published
model = T5ForConditionalGeneration.from_pretrained(folder).eval()

input_ids = torch.tensor([[byte + 3 for byte in "안녕하세요".encode()] + [1]])  # 1 ends a sequence
output = model.generate(input_ids, max_new_tokens=64, do_sample=False)[0].tolist()
print(bytes(number - 3 for number in output if 3 <= number < 259).decode(errors="replace"))
```"""

CROSS_MODAL = """```python
from pathlib import Path

from kebyt5_xm.model import CrossModalT5

model = CrossModalT5.from_pretrained("."TRUST)  # this folder, or the hub id under which it was published
print(model.answer([SEGMENTS]))
```"""

EXAMPLE_PATHS = {"image": 'Path("a.png")', "audio": 'Path("b.wav")', "array": 'Path("c.npy")'}


def describe_uses(denoising: dict[str, Any], cross_modal: bool) -> list[str]:
    """Return the sections on uses, risks and limitations."""
    restores = denoising and not cross_modal
    direct = "Restoring removed spans of text, as below" if restores else "The tasks it was trained on"
    return [
        "## Uses",
        "### Direct Use",
        f"{direct}. It follows no instructions.",
        "### Downstream Use",
        "Fine-tuning for the tasks of ByT5: noisy text or characters, short "
        "generation, classification, transliteration. Fine-tune in fp32 or bf16; fp16 overflows here.",
        "### Out-of-Scope Use",
        "Long generation (each byte is a decoding step), facts or advice, and decisions about people.",
        "## Bias, Risks, and Limitations",
        "It repeats what its training text holds, biases and errors included. Its output is bytes, which are "
        "invalid UTF-8 where generation was cut.",
        "### Recommendations",
        'Evaluate it on your own task and language before use; decode with `errors="replace"`.',
    ]


def describe_modalities(model: "CrossModalT5") -> str:
    """Return a table of the modalities, empty for a model without any."""
    rows = ["| modality | takes | encoder | adapter | frozen encoder |", "|---|---|---|---|---|"]
    for name in model.modalities:
        module, spec = model.modality(name), model.config.modalities[name]
        encoder, adapter = spec["encoder"]["class_path"], spec["adapter"]["class_path"]
        frozen = "yes" if module.encoder.keeps_initial_weights else "no"
        rows.append(f"| {name} | {module.encoder.media} | `{encoder}` | `{adapter}` | {frozen} |")
    if len(rows) == 2:
        return ""
    return "\n".join(rows) + (
        "\n\nEach medium fills slots among the bytes. `adapters/NAME` holds one adapter alone (with its encoder, if "
        "that was trained), bound to this backbone by its hash. Encoders that started from pretrained weights bring "
        "their licences with them; see their own model cards."
    )


def text_example(denoising: dict[str, Any]) -> str:
    """Return how to run a text model, by the denoising that it was trained with; empty for none."""
    if not denoising:
        return f"Give it text of the form that it was fine-tuned on.\n\n{PLAIN}"
    first, second = (int(number) for number in sentinel_ids(denoising["sentinels"], 2))
    formula = f"{first} {'-' if second < first else '+'} n"
    if denoising["sentinels"] == "extra_id":
        tokenizer = "That is the tokenizer's own `<extra_id_n>`."
    else:
        tokenizer = "The tokenizer's own `<extra_id_n>`, 259 + n, was not trained and is not used here."
    intro = f"The n-th removed span, counted from 0, is written as the id {formula}. {tokenizer}"
    return f"{intro}\n\n{RESTORE.replace('SENTINEL', formula)}"


def cross_modal_example(model: "CrossModalT5") -> str:
    """Return how to run a model with modalities."""
    from kebyt5_xm.trust import TRUSTED

    modules = {name: model.modality(name) for name in model.modalities}
    kinds = [module.encoder.media for module in modules.values()]
    parts = [
        EXAMPLE_PATHS[m.encoder.media]
        if kinds.count(m.encoder.media) == 1
        else f'("{name}", {EXAMPLE_PATHS[m.encoder.media]})'
        for name, m in modules.items()
    ]
    foreign = {
        part["class_path"].partition(".")[0]
        for spec in model.config.modalities.values()
        for part in spec.values()
        if part["class_path"].partition(".")[0] not in TRUSTED
    }
    trust = f", trusted_modules={sorted(foreign)}" if foreign else ""
    code = CROSS_MODAL.replace("TRUST", trust).replace(
        "SEGMENTS", ", ".join([*parts, '"text as in training"'])
    )
    return f"It needs the package kebyt5-xm. Give it prompts of the form that it was trained on.\n\n{code}"
