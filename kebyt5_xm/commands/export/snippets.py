"""The Python that a model card shows: it needs transformers alone and no tokenizer, bytes being plain."""

from typing import Any

from kebyt5_xm.vocabulary import sentinel_ids

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


def getting_started(denoising: dict[str, Any]) -> str:
    """Return what to run, for the denoising it was trained with; `denoising` is empty if there was none."""
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
