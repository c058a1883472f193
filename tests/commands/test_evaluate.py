"""Evaluates models on held-out tables that they were not trained with, and draws what was found."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_model import SHAPE, picture, tiny_model

from kebyt5_xm.commands import cli
from kebyt5_xm.commands.export.export import export_backbone
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.evaluation_file import EvaluationFile
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.origin import record
from kebyt5_xm.model.runs.checkpoint_reading import MODEL_PREFIX

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse
ANSWERS = ("네", "아니요")


def manifest(prompt: str, *metrics: str, **options: Any) -> dict[str, Any]:
    return {
        "class_path": "kebyt5_xm.data.Manifest",
        "init_args": {
            "path": "rows.jsonl",
            "prompt": prompt,
            "target": "{answer}",
            "metrics": [{"class_path": f"kebyt5_xm.metrics.{name}"} for name in metrics],
            **options,
        },
    }


def write_recipe(name: str, source: dict[str, Any], **others: Any) -> str:
    data = {"num_workers": 0, "micro_batch_size": 3, "sources": {"asked": source}}
    Path(name).write_text(yaml.safe_dump({"data": data, **others}, allow_unicode=True), encoding="utf-8")
    return name


def write_rows(path: str, number: int) -> None:
    rows = [{"picture": f"{n}.png", "word": f"말{n}", "answer": ANSWERS[n % 2]} for n in range(number)]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_run(path: Path, model: CrossModalT5) -> None:
    """Write a text-only run of `model`'s backbone with one checkpoint."""
    import torch

    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"model": {"backbone": {"shape": SHAPE}}}))
    record(Backbone(shape=SHAPE), path / "backbone")
    names = {n: t for n, t in model.state_dict().items() if n.startswith("backbone.")}
    state = {MODEL_PREFIX + name: tensor for name, tensor in names.items()}
    torch.save({"state_dict": state, "global_step": 7}, path / "checkpoints" / "step=7.ckpt")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cross-modal export, the plain T5 of its backbone, and a run of that."""
    folder = tmp_path_factory.mktemp("models")
    model = tiny_model()
    model.save_pretrained(folder / "cross-modal")
    export_backbone(model.backbone, folder / "text", denoising={})
    (folder / "text" / "config.json").write_text(  # as one that was trained elsewhere
        json.dumps(
            {
                k: v
                for k, v in json.loads((folder / "text/config.json").read_text()).items()
                if k != "kebyt5_xm"
            }
        )
    )
    write_run(folder / "run", model)
    return folder


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        picture(number).save(f"{number}.png")
    write_rows("rows.jsonl", 7)


def read(folder: str) -> EvaluationFile:
    found = EvaluationFile.read(Path(folder) / "evaluation.json")
    assert found is not None
    return found


def test_a_plain_t5_is_evaluated_and_drawn(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe("words.yaml", manifest("{word}?", "ExactMatch", "CharacterErrorRate"))
    cli.run("evaluate", [str(models / "text"), "-c", recipe])
    out = "evaluations/text-words"
    found = read(out)
    assert found.sources["asked"].examples == 7
    assert list(found.sources["asked"].metrics) == ["exact_match", "character_error_rate"]
    assert (found.checkpoint, found.step) == (None, None)
    score = found.sources["asked"].metrics["character_error_rate"].score
    assert score.low <= score.value <= score.high
    printed = " ".join(capsys.readouterr().out.split())
    assert f"character_error_rate {score.value:.4f} [{score.low:.4f}, {score.high:.4f}]" in printed
    assert "말3" in Path(out, "report.html").read_text("utf-8")

    cli.run("report", [out, "--out", "again.html"])  # from the files alone
    page = Path("again.html").read_text("utf-8")
    assert "말3" in page
    assert "train.py" not in page
    with pytest.raises(UserError, match="kebyt5-xm evaluate"):
        cli.run("report", [out, "--robustness"])


def test_a_cross_modal_model_answers_about_its_media(models: Path) -> None:
    """Of its two modalities the data feed one; a training recipe's labels and probes count as in training."""
    source = manifest("{picture:image} {word}?", "Accuracy", labels=list(ANSWERS))
    recipe = write_recipe("seen.yaml", source)
    cli.run("evaluate", [str(models / "cross-modal"), "-c", recipe, "--out", "seen"])
    found = read("seen").sources["asked"]
    assert found.labels == list(ANSWERS)
    assert found.modality_use is not None
    assert list(found.modality_use.modalities) == ["image"]
    assert "data:image/" in Path("seen/report.html").read_text("utf-8")
    cli.run("compare", ["seen", "seen", "--out", "both.html"])


def test_a_run_answers_the_held_out_rows_alone(models: Path) -> None:
    write_rows("held-out.jsonl", 5)
    source = manifest("{word}?", "ExactMatch", validation="held-out.jsonl", path="not-on-this-machine.jsonl")
    recipe = write_recipe("train.yaml", source, run_dir="x", model={"backbone": {"size": "small"}})
    cli.run("evaluate", [str(models / "run"), "-c", recipe, "--out", "held"])
    found = read("held")
    assert found.sources["asked"].examples == 5
    assert (found.checkpoint, found.step) == ("step=7.ckpt", 7)
    written = [json.loads(line) for line in Path("held/predictions.jsonl").read_text("utf-8").splitlines()]
    cli.run("evaluate", [str(models / "text"), "-c", recipe, "--out", "same"])
    same = [json.loads(line) for line in Path("same/predictions.jsonl").read_text("utf-8").splitlines()]
    assert [row["prediction"] for row in written] == [row["prediction"] for row in same]


def test_simple_methods_stand_beside_the_model(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are fitted on the training rows, which are opened for them alone."""
    write_rows("held-out.jsonl", 5)
    recipe = write_recipe("words.yaml", manifest("{word}?", "ExactMatch", validation="held-out.jsonl"))
    arguments = [str(models / "text"), "-c", recipe, "--probed", "0"]
    cli.run("evaluate", [*arguments, "--out", "beside", "--baselines", "auto"])
    found = read("beside").sources["asked"].baselines
    assert found is not None
    assert [baseline.method for baseline in found.measured] == ["constant", "linear", "nearest"]
    assert found.measured[2].scores["exact_match"].value == 1.0, "all words are among the training rows"
    assert (found.training_rows, found.of_rows) == (7, 7)
    assert "on characters, and the model is no better" in capsys.readouterr().out
    assert "no better than" in Path("beside/report.html").read_text("utf-8")
    cli.run("evaluate", [*arguments, "--out", "alone"])
    assert read("alone").sources["asked"].baselines is None
    with pytest.raises(UserError, match="--baselines on"):
        cli.run("report", ["beside", "--baselines", "on"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nothing/here/at-all", "-c", "words.yaml"], "neither an existing folder"),
        (["text", "-c", "see.yaml"], "data.sources.asked: .*image"),
        (["text", "-c", "empty.yaml"], "no data.sources in empty.yaml"),
        (["text", "-c", "words.yaml", "--out", "taken"], "'taken' is not an evaluation"),
        (["text", "-c", "words.yaml", "--out", "old"], "'old' holds an evaluation.*--overwrite"),
        (["text", "-c", "words.yaml", "--out", "rows.jsonl/x"], "cannot make 'rows.jsonl/x'"),
        (["text", "-c", "words.yaml", "--probed", "-1"], "--probed -1"),
        (["old", "-c", "words.yaml"], "'old' is an evaluation of 'a/b' and holds no weights"),
    ],
)
def test_wrong_inputs_are_one_line(models: Path, arguments: list[str], error: str) -> None:
    write_recipe("words.yaml", manifest("{word}?", "ExactMatch"))
    write_recipe("see.yaml", manifest("{picture:image}?", "ExactMatch"))
    Path("empty.yaml").write_text("trainer: {max_steps: 3}\n")
    Path("taken").mkdir()
    Path("taken", "thesis.txt").write_text("")
    Path("old").mkdir()
    Path("old", "config.yaml").write_text("evaluated_model: a/b\n")
    name, *rest = arguments
    model = models / name if (models / name).is_dir() else name
    with pytest.raises(UserError, match=error) as caught:
        cli.run("evaluate", [str(model), *rest])
    assert "\n" not in str(caught.value)
    assert not Path("evaluations").exists()
    assert sorted(path.name for path in Path("old").iterdir()) == ["config.yaml"]


def test_an_earlier_evaluation_is_replaced_only_on_request(models: Path) -> None:
    recipe = write_recipe("words.yaml", manifest("{word}?", "ExactMatch"))
    arguments = [str(models / "text"), "-c", recipe, "--out", "out", "--probed", "0"]
    cli.run("evaluate", arguments)
    write_rows("rows.jsonl", 3)
    with pytest.raises(UserError):
        cli.run("evaluate", arguments)
    assert read("out").sources["asked"].examples == 7
    cli.run("evaluate", [*arguments, "--overwrite"])
    assert read("out").sources["asked"].examples == 3
