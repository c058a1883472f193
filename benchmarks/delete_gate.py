"""Loss against speed of `model.delete_gate` on held-out text of four languages.

    python -m demo text              # once: the text model that every run starts from
    python -m benchmarks.delete_gate

The demo's text model (2 + 2 layers) is trained on by its own recipe for `STEPS` steps, without a gate and with gates
after layer 1; then bits per byte, the share of deleted positions and the seconds of a forward pass are measured on
held-out text, on one thread. A second model, with random weights and more layers, shows the speed alone where layers
after the gate do most of the work.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.report import measure_seconds, write_report
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.sources.denoise import Denoising
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding.opening import encode, open_decoder
from kebyt5_xm.model.delete_gate import GatedStates
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.model.t5 import saved_config

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "runs" / "demo"
RECIPE = ROOT / "configs" / "demo" / "text.yaml"
STEPS = 200
RATE = 0.02
"""Learning rate, relative to each matrix as in the recipe, which begins at 0.05."""
SEED = 0
EXAMPLES = 100
"""Held-out examples of each language."""
GATES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "rate_0.3": {"layer": 1, "rate": 0.3},
    "rate_0.5": {"layer": 1, "rate": 0.5},
}
DEEP = {"d_model": 256, "d_ff": 640, "num_heads": 4, "num_layers": 9, "num_decoder_layers": 3, "d_kv": 64}
"""The layers of `size: mini` at a quarter of its width."""
DEEP_LENGTH, DEEP_LAYER = 1024, 3
DEEP_SHARES = (0.3, 0.5, 0.7)


def main() -> None:
    """Train, measure, print and write benchmarks/results/delete_gate.json."""
    if not (DEMO / "text").is_dir():
        raise UserError(
            "found no runs/demo/text, which the runs start from; make it with `python -m demo text`"
        )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures: dict[str, Any] = {"steps": STEPS, "learning_rate": RATE, "examples_per_language": EXAMPLES}
        models = {}
        for arm, gate in GATES.items():
            figures[arm] = {"train_seconds": train(folder, arm, gate)}
            models[arm] = CrossModalT5.from_pretrained(folder / arm)
        data = held_out()
        for arm, model in models.items():
            figures[arm] |= measure_text(model, data)
        batch = next(iter(data.validation_loader(0))).to("cpu")
        figures["demo_seconds"] = ratios({arm: (model, batch) for arm, model in models.items()})
    figures["deep_seconds"] = ratios(deep_models())
    write_report("delete_gate", figures)


def train(folder: Path, arm: str, gate: dict[str, Any] | None) -> float:
    """Train in `folder`/`arm` from the demo's text model; return the seconds of its steps."""
    recipe = {
        "run_dir": str(folder / arm),
        "seed_everything": SEED,
        "checkpoint_every": STEPS,
        "report": False,
        "model": {
            "backbone": {"weights": str(DEMO / "text"), "shape": None},
            "optimizer": {"init_args": {"lr": RATE}},
            "delete_gate": gate,
        },
        "data": {"sources": {"text": {"init_args": {"max_validation_examples": 8}}}},
        "trainer": {
            "max_steps": STEPS,
            "val_check_interval": STEPS,
            "enable_progress_bar": False,
        },
    }
    path = folder / f"{arm}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "train.py", "fit", "-c", str(RECIPE), "-c", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / arm / "results.json").read_text(encoding="utf-8"))["train_seconds"]


def held_out() -> DataModule:
    """Return the held-out text of the demo, in batches of 8 rows."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    given = recipe["data"]["sources"]["text"]["init_args"]
    for key in ("stores", "validation"):
        given[key] = {language: str(ROOT / store) for language, store in given[key].items()}
    source = Denoising(**{**given, "max_validation_examples": EXAMPLES})
    data = DataModule({"text": source}, global_batch_size=8, micro_batch_size=8)
    data.prepare({})
    data.connect({})
    return data


@torch.no_grad()
def measure_text(model: CrossModalT5, data: DataModule) -> dict[str, dict[str, float]]:
    """Return bits per byte and the share of deleted positions of each language, with hard deletion."""
    tally = Tally(len(data.validation), model.device)
    deleted = {}
    for number, name in enumerate(data.validation.names):
        counts = torch.zeros(2)
        for batch in data.validation_loader(number):
            output = teacher_force(model, (batch := batch.to("cpu")).inputs, batch.labels)
            tally.add(batch, token_losses(output.logits, batch.labels))
            if output.gate is not None:
                counts += torch.stack([(output.gate > 0.5).sum(), batch.inputs.lengths.sum()])
        deleted[name.rpartition("/")[2]] = float(counts[0] / counts[1]) if counts[1] else 0.0
    parts, whole = tally.totals()
    languages = [name.rpartition("/")[2] for name in data.validation.names]
    bits = {language: part.bits_per_byte for language, part in zip(languages, parts, strict=True)}
    return {"bits_per_byte": bits | {"all": whole.bits_per_byte}, "deleted": deleted}


def deep_models() -> dict[str, tuple[CrossModalT5, Batch | torch.Tensor]]:
    """Return models with random weights whose gates delete fixed shares, each with ids [1, S]."""
    torch.manual_seed(SEED)
    ids = torch.randint(3, 259, (1, DEEP_LENGTH))
    config = saved_config(Backbone(shape=DEEP).config())
    models: dict[str, tuple[CrossModalT5, Batch | torch.Tensor]] = {}
    for name, share in {"none": None, **{f"deleted_{share}": share for share in DEEP_SHARES}}.items():
        torch.manual_seed(SEED)
        gate = None if share is None else {"layer": DEEP_LAYER}
        model = CrossModalT5(CrossModalT5Config(config, delete_gate=gate)).eval()
        if model.delete_gate is not None and share is not None:
            with torch.no_grad():
                found = model.encode(ids)
                assert isinstance(found, GatedStates)
                assert found.gate is not None
                threshold = found.gate[0].logit().quantile(1 - share)
                model.delete_gate.bias.data -= threshold
        models[name] = model, ids
    return models


def ratios(models: dict[str, tuple[CrossModalT5, Batch | torch.Tensor]]) -> dict[str, float]:
    """Return the seconds of the encoder and the decoder's keys of it, and ratios to the model `none`."""

    def call(model: CrossModalT5, batch: Batch | torch.Tensor) -> object:
        with torch.inference_mode():
            if isinstance(batch, Batch):
                return open_decoder(model, *encode(model, batch.inputs))
            output = model.encode(batch)
            states = output.last_hidden_state
            assert states is not None
            return open_decoder(model, states, output.mask if isinstance(output, GatedStates) else None)

    seconds = measure_seconds({name: lambda given=given: call(*given) for name, given in models.items()})
    others = {
        f"ratio_{name}_to_none": seconds["none"] / value for name, value in seconds.items() if name != "none"
    }
    return {f"{name}_ms": 1000 * value for name, value in seconds.items()} | others


if __name__ == "__main__":
    main()
