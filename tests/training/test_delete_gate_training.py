"""Runs with a delete gate: the controller, resuming, starting from a gated model, exports, refusals."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from tiny_run import STRATEGIES, fit_to_log, resumable_recipe, train_losses

from kebyt5_xm.commands.compose import compose
from kebyt5_xm.commands.export.ctranslate2_format import check_convertible
from kebyt5_xm.commands.export.export import export_run
from kebyt5_xm.data.order.steps import Budget
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.delete_gate import SCALE, DeleteGate, DeleteGateModule
from kebyt5_xm.model.delete_gate_files import check_start
from kebyt5_xm.model.runs.run import Run, model_tensors
from kebyt5_xm.optimizers import RMSScaledAdamW
from kebyt5_xm.training.building import ModelBuilder
from kebyt5_xm.training.gate_control import Controller, check_batches, check_gate
from kebyt5_xm.training.groups import Group, make_optimizer_groups, scale_rates

SHAPE = {"d_model": 29, "d_ff": 37, "num_heads": 3, "num_layers": 3, "num_decoder_layers": 2, "d_kv": 7}
GATE = {"layer": 1, "rate": 0.4, "hard_from": 5}


def recipe(folder: Path, run: str, **trainer: Any) -> dict[str, Any]:
    contents = resumable_recipe(folder, run, **trainer)
    contents["model"]["delete_gate"] = GATE
    return contents


def fit(folder: Path, contents: dict[str, Any], *args: str, ranks: int = 1) -> None:
    assert fit_to_log(folder, contents, *args, ranks=ranks) == [0] * ranks, (folder / "log").read_text()[
        -4000:
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delete_gate")
    tiny_run.write_stores(folder)
    fit(folder, recipe(folder, "whole"))
    return folder


def values(run: Path, metric: str) -> list[float]:
    return [row["value"] for row in Run(run).metrics() if row["metric"] == metric]


def test_the_controller_brings_the_share_to_its_target() -> None:
    """Positions that cost from 0 to 1 nat to delete, each with its own gate."""
    torch.manual_seed(0)
    logits = torch.nn.Parameter(torch.full((101,), -5.0))
    costs = torch.linspace(0, 1, 101)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    controller = Controller(0.4)
    shares = []
    for _ in range(600):
        gate = torch.sigmoid(logits)
        loss = (costs * gate).mean() + controller.weight * (-30 * gate).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shares.append(float((gate > 0.5).float().mean()))
        controller.update(shares[-1])
    assert sum(shares[-100:]) / 100 == pytest.approx(0.4, abs=0.05)
    assert costs[logits > 0].mean() < costs[logits <= 0].mean()  # the cheapest are deleted


def test_a_controller_continues_from_its_state() -> None:
    whole, first, second = Controller(0.3), Controller(0.3), Controller(0.3)
    for share in (0.0, 0.1, 0.2):
        whole.update(share)
        first.update(share)
    second.load(first.state())
    for controller in (whole, second):
        controller.update(0.35)
    assert second.weight == whole.weight > 0
    for _ in range(99):
        whole.update(1.0)
    assert whole.weight < -0.3  # keeping is rewarded


def test_a_gate_comes_back_after_all_was_deleted() -> None:
    """A weight of at least 0 cannot do it: a saturated gate has hardly any gradient from the model's loss."""
    torch.manual_seed(0)
    gate = DeleteGateModule(1, 31)
    gate.bias.data.fill_(3.0)
    states = torch.randn(5, 53, 31)
    controller, optimizer = Controller(0.3), RMSScaledAdamW(gate.parameters(), lr=0.005)
    shares = []
    for _ in range(250):
        values = gate(states)
        optimizer.zero_grad()
        (controller.weight * (SCALE * values).mean()).backward()
        optimizer.step()
        shares.append(float((values > 0.5).float().mean()))
        controller.update(shares[-1])
    assert shares[0] > 0.95
    assert 0.3 < shares[-1] < 0.5


def test_a_gate_learns_at_a_tenth_of_the_rate() -> None:
    parameter = torch.nn.Parameter
    named = [
        ("backbone.shared.weight", parameter(torch.ones(2))),
        ("delete_gate.weight", parameter(torch.ones(3))),
    ]
    optimizer = torch.optim.AdamW(make_optimizer_groups({}, named), lr=0.01)
    scale_rates(optimizer)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == {"default": 0.01, "delete_gate": 0.001}
    given = make_optimizer_groups({"gate": Group("delete_gate.*", lr=0.02)}, named)
    assert [(g["name"], g.get("lr"), len(g["params"])) for g in given] == [
        ("default", None, 1),
        ("gate", 0.02, 1),
    ]


@pytest.mark.parametrize(
    ("layer", "backbone", "message"),
    [
        (3, {}, "expected at most 2"),
        (1, {"frozen": True}, "set frozen to false"),
        (1, {"attention": "eager"}, "set model.backbone.attention: sdpa"),
    ],
)
def test_a_backbone_that_cannot_have_the_gate_is_refused(
    layer: int, backbone: dict[str, Any], message: str
) -> None:
    gate = DeleteGate(layer=layer)
    builder = ModelBuilder(Backbone(shape=SHAPE, **backbone), {}, "shared", {}, {}, None, gate)
    with pytest.raises(UserError, match=message):
        builder.check()


def test_packed_rows_are_refused() -> None:
    budget = Budget(global_length=512, micro_length=128, packed_length=64)
    with pytest.raises(UserError, match="packed_length is 64; take it out"):
        check_batches(DeleteGate(), budget, SingleDeviceStrategy())
    check_batches(None, budget, SingleDeviceStrategy())


def test_ctc_beside_a_gate_is_refused() -> None:
    """A CTC head needs the state of every slot; hard deletion has no state of some."""
    check_gate(DeleteGate(layer=1), Backbone(shape=SHAPE))
    with pytest.raises(UserError, match=r"modalities.speech.ctc reads .* take one of them out"):
        check_gate(DeleteGate(layer=1), Backbone(shape=SHAPE), ["speech"])


@pytest.mark.slow
def test_the_share_and_the_weight_are_logged_beside_the_loss(folder: Path) -> None:
    shares, weights = (values(folder / "whole", f"train/{name}") for name in ("deleted", "deletion_weight"))
    assert len(shares) == len(weights) == tiny_run.STEPS
    assert all(0 <= share <= 1 for share in shares)
    assert weights[0] > 0
    losses = values(folder / "whole", "train/loss")
    assert all(0 < loss < 10 for loss in losses)  # G is down to -30


@pytest.mark.slow
def test_killed_and_continued_it_is_bit_identical(folder: Path) -> None:
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 17}}
    assert fit_to_log(folder, recipe(folder, "killed", callbacks=[kill])) == [-signal.SIGKILL]
    fit(folder, recipe(folder, "killed"), "--ckpt_path", "last")
    assert train_losses(folder / "killed") == train_losses(folder / "whole")
    found, whole = (model_tensors(Run(folder / run).last) for run in ("killed", "whole"))
    assert found.keys() == whole.keys()
    assert all(found[key].equal(tensor) for key, tensor in whole.items())
    name = "train/deletion_weight"
    assert values(folder / "killed", name)[-1] == values(folder / "whole", name)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_ranks_delete_as_one(folder: Path, strategy: str) -> None:
    def contents(run: str, **trainer: Any) -> dict[str, Any]:
        result = tiny_run.recipe(folder, run, **trainer)
        result["model"]["delete_gate"] = GATE
        return result

    if not (folder / "single").exists():
        fit(folder, contents("single"))
    fit(folder, contents(strategy, strategy=STRATEGIES[strategy], devices=2), ranks=2)
    assert train_losses(folder / strategy) == pytest.approx(train_losses(folder / "single"), rel=1e-4)
    name = "train/deletion_weight"
    assert values(folder / strategy, name) == pytest.approx(values(folder / "single", name), rel=1e-4)


@pytest.mark.slow
def test_an_export_is_no_plain_t5_and_gives_the_same_logits(folder: Path) -> None:
    run = Run(folder / "whole")
    export_run(run, folder / "export")
    config = json.loads((folder / "export" / "config.json").read_text())
    assert config["architectures"] == ["CrossModalT5"]
    assert config["delete_gate"] == {"layer": 1}
    models = [CrossModalT5.from_pretrained(folder / name) for name in ("whole", "export")]
    ids = torch.arange(3, 64)[None]
    with torch.no_grad():
        logits = [model(input_ids=ids, labels=ids[:, :7], use_cache=False).logits for model in models]
    assert logits[0].equal(logits[1])
    card = (folder / "export" / "README.md").read_text()
    assert "no plain T5" in card
    assert "library_name: kebyt5-xm" in card
    code = card.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    with pytest.raises(UserError, match="--format transformers"):
        check_convertible(run, lora_apart=False)
    with pytest.raises(UserError, match="--lora merged"):
        export_run(run, folder / "apart", lora_apart=True)
    with pytest.raises(UserError, match="no plain T5"):
        compose(str(folder / "export"), {})


@pytest.mark.slow
@pytest.mark.parametrize("source", ["whole", "export"])
def test_training_starts_from_the_gate_of_its_weights(folder: Path, source: str) -> None:
    if not (folder / "export").exists():
        export_run(Run(folder / "whole"), folder / "export")
    weights = str(folder / source)
    assert check_start(weights, {"layer": 1})
    with pytest.raises(UserError, match=r"set model.delete_gate: \{layer: 1\}"):
        check_start(weights, None)
    with pytest.raises(UserError, match="after layer 1; give that number"):
        check_start(weights, {"layer": 2})
    builder = ModelBuilder(Backbone(weights=weights), {}, "shared", {}, {}, None, DeleteGate(layer=1))
    builder.check()
    gate = builder.build().delete_gate
    assert gate is not None
    expected = model_tensors(Run(folder / "whole").checkpoint())
    assert gate.weight.equal(expected["delete_gate.weight"])
