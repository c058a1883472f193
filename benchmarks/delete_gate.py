"""Loss against speed of `model.delete_gate` on held-out text of four languages.

    python -m demo text              # once: the stores of text
    python -m benchmarks.delete_gate

The demo's text model, with 4 encoder layers instead of 2, is trained from scratch by the demo's recipe for `STEPS`
steps: without a gate, and with gates after layer 1. Then bits per byte and the share of deleted positions are
measured on held-out text, and on one thread and one batch the seconds of a training step, of encoding, and of
encoding and writing. A second model, with random weights and more layers, shows the speed alone where layers after
the gate do most of the work.
"""

import os
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
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.model.t5 import saved_config

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "configs" / "demo" / "text.yaml"
STEPS = 250
LAYERS = 4
SEED = 0
EXAMPLES = 50
"""Held-out examples of each language."""
WRITTEN = 64
"""Bytes that are written to each row."""
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
    if not (ROOT / "runs" / "demo" / "data" / "ko.train").is_dir():
        raise UserError("found no stores in runs/demo/data; make them with `python -m demo text`")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        models = {arm: CrossModalT5.from_pretrained(folder / arm) for arm in GATES}
        shares = {arm: shares_in_training(folder / arm) for arm, gate in GATES.items() if gate}
    figures: dict[str, Any] = {"steps": STEPS, "encoder_layers": LAYERS, "examples_per_language": EXAMPLES}
    figures["deleted_in_training"] = shares
    data = held_out()
    figures |= {arm: measure_text(model, data) for arm, model in models.items()}
    batch = next(iter(data.validation_loader(0))).to("cpu")
    figures["training_step"] = training_ratios(models, batch)
    figures["encoding"] = ratios({arm: (model, batch) for arm, model in models.items()})
    figures["writing"] = ratios({arm: (model, batch) for arm, model in models.items()}, WRITTEN)
    figures["deep_encoding"] = ratios(deep_models())
    write_report("delete_gate", figures)


def train(folder: Path) -> None:
    """Train every contestant in `folder`/ARM, all at once."""
    shape = {**yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["model"]["backbone"]["shape"]}
    runs = []
    for arm, gate in GATES.items():
        recipe = {
            "run_dir": str(folder / arm),
            "seed_everything": SEED,
            "checkpoint_every": STEPS,
            "report": False,
            "forgetting": None,
            "model": {"backbone": {"shape": {**shape, "num_layers": LAYERS}}, "delete_gate": gate},
            "data": {"sources": {"text": {"init_args": {"max_validation_examples": 8}}}},
            "trainer": {
                "max_steps": STEPS,
                "val_check_interval": STEPS,
                "enable_progress_bar": False,
                "log_every_n_steps": 10,
            },
        }
        path = folder / f"{arm}.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        command = [sys.executable, "train.py", "fit", "-c", str(RECIPE), "-c", str(path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        runs.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL))
    codes = [run.wait() for run in runs]
    if any(codes):
        raise UserError("a training run failed; its error is above")


def shares_in_training(run: Path) -> dict[str, float]:
    """Return the share that was deleted in about every 30th step."""
    rows = [row for row in Run(run).metrics() if row["metric"] == "train/deleted"]
    return {f"step_{row['step']}": row["value"] for row in rows[1::3]}


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


def training_ratios(models: dict[str, CrossModalT5], batch: Batch) -> dict[str, float]:
    """Return the seconds of the forward and backward pass, with soft and hard deletion, and ratios to `none`."""

    def call(model: CrossModalT5, is_hard: bool) -> None:
        if model.delete_gate is not None:
            model.delete_gate.is_hard = is_hard
        output = teacher_force(model, batch.inputs, batch.labels)
        token_losses(output.logits, batch.labels).sum().backward()
        model.zero_grad()

    for model in models.values():
        model.train()
    soft = {arm: lambda given=model: call(given, False) for arm, model in models.items()}
    hard = {f"{arm}_hard": lambda given=models[arm]: call(given, True) for arm, gate in GATES.items() if gate}
    found = compare(soft | hard)
    for model in models.values():
        model.eval()
    return found


def ratios(
    models: dict[str, tuple[CrossModalT5, Batch | torch.Tensor]], written: int = 0
) -> dict[str, float]:
    """Return the seconds of the encoder, the decoder's keys of it and `written` steps, and ratios to `none`."""

    def call(model: CrossModalT5, batch: Batch | torch.Tensor) -> None:
        with torch.inference_mode():
            if isinstance(batch, Batch):
                decoder = open_decoder(model, *encode(model, batch.inputs))
            else:
                output = model.encode(batch)
                states = output.last_hidden_state
                assert states is not None
                decoder = open_decoder(
                    model, states, output.mask if isinstance(output, GatedStates) else None
                )
            for _ in range(written):
                decoder.step(torch.zeros(8, 1, dtype=torch.long))

    return compare({name: lambda given=given: call(*given) for name, given in models.items()})


def compare(functions: dict[str, Any]) -> dict[str, float]:
    """Return the milliseconds of each function, and how many times as fast as `none` it is."""
    seconds = measure_seconds(functions)
    others = {name: seconds["none"] / value for name, value in seconds.items() if name != "none"}
    times = {f"{name}_ms": 1000 * value for name, value in seconds.items()}
    return times | {f"speed_ratio_{name}_to_none": value for name, value in others.items()}


if __name__ == "__main__":
    main()
