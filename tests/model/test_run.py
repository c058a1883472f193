"""Run directories: the checkpoint that an argument means, and reading the files that training writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run, backbone_tensors, resolve

TENSORS = {
    "shared.weight": torch.arange(35.0).reshape(5, 7),
    "lm_head.weight": torch.arange(35.0).reshape(5, 7) / 3,
}
STATE = {f"model.backbone.{name}": tensor for name, tensor in TENSORS.items()} | {
    "model.modalities.image.adapter.weight": torch.ones(11)
}


def save(path: Path, step: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": STATE, "global_step": step, "optimizer_states": [{"x": torch.ones(3)}]}, path)
    return path


@pytest.fixture
def run(tmp_path) -> Run:
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text("seed_everything: 13\ndata:\n  sources: {}\n")
    return Run(path)


def test_the_chosen_checkpoint_else_the_best_else_the_last(run):
    with pytest.raises(UserError, match="no checkpoint yet"):
        run.checkpoint()
    with pytest.raises(UserError, match="no best checkpoint yet"):
        run.best  # noqa: B018
    folder = run.path / "checkpoints"
    first, newest = save(folder / "step=97.ckpt", 97), save(folder / "step=103.ckpt", 103)
    save(folder / "step=1009.ckpt.partial", 1009)
    assert run.last == run.checkpoint() == newest  # by number, not by name or time
    best = save(folder / "best.ckpt", 89)
    assert run.checkpoint() == run.best == best
    assert resolve(str(run.path)).checkpoint() == best
    chosen = resolve(str(first))
    assert chosen.checkpoint() == first
    assert chosen.config["seed_everything"] == 13
    assert [checkpoint_step(path) for path in (best, newest)] == [89, 103]


def test_incomplete_checkpoints_without_a_digest_are_skipped(run, caplog):
    folder = run.path / "checkpoints"
    whole, cut = save(folder / "step=97.ckpt", 97), save(folder / "step=101.ckpt", 101)
    cut.write_bytes(cut.read_bytes()[:-307])
    (folder / "step=103.ckpt").mkdir()
    assert run.last == whole
    assert "skips damaged checkpoints: step=103.ckpt, step=101.ckpt" in caplog.text


def test_relative_path_of_a_checkpoint_finds_its_run(run, monkeypatch):
    save(run.path / "checkpoints" / "best.ckpt", 5)
    monkeypatch.chdir(run.path / "checkpoints")
    assert resolve("best.ckpt").path == run.path


def test_other_paths_than_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'.*nothing' is not a directory"):
        resolve(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"holds no config.yaml; expected a run directory"):
        resolve(tmp_path)


def test_only_the_backbones_tensors_are_returned(run):
    tensors = backbone_tensors(save(run.path / "checkpoints" / "best.ckpt", 5))
    torch.testing.assert_close(tensors, TENSORS, rtol=0, atol=0)


def test_unreadable_checkpoints(tmp_path):
    path = save(tmp_path / "step=3.ckpt", 3)
    path.write_bytes(path.read_bytes()[:-101])
    with pytest.raises(UserError, match="may be incomplete: choose another"):
        backbone_tensors(path)
    torch.save({"state_dict": STATE, "global_step": 3, "callbacks": print}, path)
    with pytest.raises(UserError, match="was not opened"):
        backbone_tensors(path)
    torch.save({"weights": torch.ones(2)}, path)
    with pytest.raises(UserError, match="not a checkpoint of Lightning"):
        backbone_tensors(path)
    torch.save({"state_dict": {"layer.weight": torch.ones(2)}, "global_step": 3}, path)
    with pytest.raises(UserError, match=r"holds no 'model.backbone.\*' tensors"):
        backbone_tensors(path)
    with pytest.raises(UserError, match="not a checkpoint: neither a file nor"):
        backbone_tensors(tmp_path)


def test_sharded_checkpoint_of_fsdp2(tmp_path):
    from torch.distributed import checkpoint as dcp

    path = tmp_path / "step=7.ckpt"
    state = {
        "state_dict": STATE,
        "optimizer_0": {"state": {"model.backbone.shared.weight": torch.ones(5, 7)}},
    }
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, checkpoint_id=path, no_dist=True)
    torch.testing.assert_close(backbone_tensors(path), TENSORS, rtol=0, atol=0)
    assert checkpoint_step(path) == 7


def test_deepspeed_checkpoint_without_deepspeed(tmp_path, monkeypatch):
    (tmp_path / "latest").write_text("checkpoint")
    monkeypatch.setitem(sys.modules, "deepspeed.utils.zero_to_fp32", None)
    with pytest.raises(UserError, match=r"install 'kebyt5-xm\[deepspeed\]'"):
        backbone_tensors(tmp_path)


SAVE_WITH_DEEPSPEED = """
import sys
import torch
import deepspeed
from deepspeed.ops import __compatible_ops__
__compatible_ops__["deepspeed_shm_comm"] = False  # otherwise it is compiled, for minutes

class Task(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.backbone = torch.nn.Module()
        self.model.backbone.shared = torch.nn.Embedding(5, 7)
        self.model.backbone.lm_head = torch.nn.Linear(7, 5, bias=False)
        with torch.no_grad():
            self.model.backbone.shared.weight.copy_(torch.arange(35.0).reshape(5, 7))
            self.model.backbone.lm_head.weight.copy_(torch.arange(35.0).reshape(5, 7) / 3)

store = f"file://{sys.argv[1]}.init"
torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
task = Task()
engine, *_ = deepspeed.initialize(
    model=task,
    optimizer=torch.optim.AdamW(task.parameters()),
    config={"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": int(sys.argv[2])}},
)
engine.save_checkpoint(sys.argv[1], tag="checkpoint", client_state={"global_step": 7})
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["2", "3"])
def test_deepspeed_checkpoint(tmp_path, stage, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    path = tmp_path / "step=7.ckpt"
    environment = {**os.environ, "LOCAL_RANK": "0"}
    command = [sys.executable, "-c", SAVE_WITH_DEEPSPEED, str(path), stage]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    torch.testing.assert_close(backbone_tensors(path), TENSORS, rtol=0, atol=0)


def test_metrics_survive_a_kill(run):
    (run.path / "metrics.csv").write_text(
        "step,metric,value\n"
        "5,train/loss,6.5\n"
        "5,val/loss,6.25\n5,val/loss/text/ko,6.0\n5,baseline/unigram/text/ko,5.5\n5,val/bits_per_byte/text/ko,8.5\n"
        "7,train/lo7,train/loss,4.5\n"
        "10,train/loss,4.0\n"
        "10,val/loss/text/ko,4.75\n"
        "5,train/loss,6.125\n"
        "5,val/loss,6.375\n"
    )
    losses = [(row["step"], row["value"]) for row in run.metrics() if row["metric"] == "train/loss"]
    assert losses == [(5, 6.5), (10, 4.0), (5, 6.125)]
    ko = {"bits_per_byte": 8.5, "loss": 6.0, "unigram": 5.5}
    assert run.validation(9) == (5, {"all": {"loss": 6.375}, "text/ko": ko})
    assert run.validation() == (10, {"all": {"loss": 6.375}, "text/ko": {**ko, "loss": 4.75}})


def test_a_run_without_figures(run):
    assert (run.metrics(), run.results()) == ([], {})
    assert run.validation() == (0, {})
    (run.path / "results.json").write_text(json.dumps({"steps": 17}))
    assert run.results() == {"steps": 17}
