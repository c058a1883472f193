"""What the model card of a `CrossModalT5` says beyond that of its backbone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kebyt5_xm.model.cross_modal import CrossModalT5

USE = """```python
from pathlib import Path

from kebyt5_xm.model import CrossModalT5

model = CrossModalT5.from_pretrained("."TRUST)  # this folder, or the hub id under which it was published
print(model.answer([SEGMENTS]))
```"""

EXAMPLES = {"image": 'Path("a.png")', "audio": 'Path("b.wav")', "array": 'Path("c.npy")'}


def modalities_section(model: "CrossModalT5") -> str:
    """Return a table of the modalities, empty if there is none."""
    rows = ["| modality | takes | encoder | adapter | frozen encoder |", "|---|---|---|---|---|"]
    for name in model.modalities:
        module, spec = model.modality(name), model.config.modalities[name]
        encoder, adapter = spec["encoder"]["class_path"], spec["adapter"]["class_path"]
        frozen = "yes" if module.encoder.has_fixed_features else "no"
        rows.append(f"| {name} | {module.encoder.media} | `{encoder}` | `{adapter}` | {frozen} |")
    if len(rows) == 2:
        return ""
    return "\n".join(rows) + (
        "\n\nEach medium fills slots among the bytes. `adapters/NAME` holds one adapter alone (with its encoder, if "
        "that was trained), bound to this backbone by its hash. Encoders that started from pretrained weights bring "
        "their licences with them; see their own model cards."
    )


def getting_started(model: "CrossModalT5") -> str:
    """Return what to run."""
    from kebyt5_xm.trust import TRUSTED

    modules = {name: model.modality(name) for name in model.modalities}
    kinds = [module.encoder.media for module in modules.values()]
    parts = [
        EXAMPLES[m.encoder.media]
        if kinds.count(m.encoder.media) == 1
        else f'("{name}", {EXAMPLES[m.encoder.media]})'
        for name, m in modules.items()
    ]
    foreign = {
        part["class_path"].partition(".")[0]
        for spec in model.config.modalities.values()
        for part in spec.values()
        if part["class_path"].partition(".")[0] not in TRUSTED
    }
    trust = f", trusted_modules={sorted(foreign)}" if foreign else ""
    code = USE.replace("TRUST", trust).replace("SEGMENTS", ", ".join([*parts, '"text as in training"']))
    return f"It needs the package kebyt5-xm. Give it prompts of the form that it was trained on.\n\n{code}"
