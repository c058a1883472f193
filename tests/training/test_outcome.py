"""The end of `fit`: held-out metrics at the best and the last checkpoint, their paths, and commands that run."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
import yaml
from tiny_run import fit_and_read_log, recipe, write_stores

from kebyt5_xm.commands import cli
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.outcome import describe_outcome, next_commands

ROOT = Path(__file__).resolve().parents[2]
METRICS = """step,metric,value
3,val/accuracy/digits,0.5
3,val/bits_per_byte/digits,2.5
3,val/bits_per_byte,2.0
3,val/loss/gone,9.0
5,train/loss,1.0
6,val/accuracy/digits,0.75
6,val/bits_per_byte/digits,3.5
6,val/bits_per_byte,3.0
6,val/accuracy/digits,0.875
"""


def write_run(folder: Path, metrics: str, **checkpoints: int) -> Run:
    (folder / "checkpoints").mkdir(parents=True)
    config = {"monitor": "val/accuracy/digits"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.csv").write_text(metrics)
    for name, step in checkpoints.items():
        path = folder / "checkpoints" / ("best.ckpt" if name == "best" else f"step={step}.ckpt")
        torch.save({"state_dict": {}, "global_step": step}, path)
    return Run(folder)


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_every_metric_stands_at_both_checkpoints(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a run", METRICS, best=3, last=7)
    printed = describe_outcome(run)
    assert "best (step 3)  last (step 7, validated at 6)" in printed
    rows = cells(printed)
    assert ["digits", "accuracy", "*", "0.5000", "0.8750"] in rows  # the last row of a step
    assert ["digits", "bits_per_byte", "2.5000", "3.5000"] in rows
    assert ["all", "bits_per_byte", "2.0000", "3.0000"] in rows
    assert ["gone", "loss", "9.0000", "-"] in rows
    assert f"last  {run.last}" in printed
    assert f"best  {run.best}" in printed
    assert "train" not in printed.split("next:")[0]


def test_a_run_without_validation_has_its_last_checkpoint_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "step,metric,value\n5,train/loss,1.0\n", last=7)
    printed = describe_outcome(run)
    assert "no validation" in printed
    assert str(run.last) in printed
    assert "best  " not in printed


def test_the_next_commands_take_paths_with_spaces(tmp_path: Path) -> None:
    commands = [command for command, _ in next_commands(write_run(tmp_path / "a run", METRICS, last=7))]
    folder = str(tmp_path / "a run")
    assert [shlex.split(command) for command in commands] == [
        ["kebyt5-xm", "report", folder],
        ["kebyt5-xm", "export", folder, "--out", f"{folder}/export"],
        ["kebyt5-xm", "serve", folder],
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse
def test_fit_ends_with_commands_that_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stores(tmp_path)
    codes, log = fit_and_read_log(tmp_path, recipe(tmp_path, "run"))
    assert codes == [0]
    end = log[log.index("held out  ") :]
    assert "text/ko   bits_per_byte" in end
    assert "all       bits_per_byte *" in end
    commands = [shlex.split(line, comments=True)[1:] for line in end.splitlines() if "kebyt5-xm " in line]
    assert [command[0] for command in commands] == ["report", "export", "serve"]
    for name, *arguments in commands[:2]:
        cli.run(name, arguments)
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()
    words = [sys.executable, "-m", "kebyt5_xm", *commands[2], "--port", "0"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+:\d+", server.stdout.readline())
        assert found
        page = json.loads(urlopen(f"{found[0]}/v1/page").read())
        server.terminate()
    assert page["model"] == "run"
    assert len(page["gaps"]) == 2
