"""Recipes, runs and exports with former class paths load, and print the new name once."""

from pathlib import Path

import pytest
import tiny_run
import yaml
from tiny_model import tiny_model

from kebyt5_xm import trust
from kebyt5_xm.commands.cli import main
from kebyt5_xm.data import Denoising, Manifest
from kebyt5_xm.model import CrossModalT5
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training import recipes
from kebyt5_xm.training.from_recipes import build_task

OLD_RUN = """
# Lightning 2.6.6
seed_everything: 3
run_dir: runs/old
model:
  backbone: {shape: {d_model: 32, d_kv: 8, d_ff: 64, num_heads: 4, num_layers: 2, num_decoder_layers: 1}}
  optimizer:
    class_path: kebyt5_xm.optimizers.RMSScaledAdamW
    init_args: {lr: 0.003}
data:
  sources:
    rows:
      class_path: kebyt5_xm.data.manifest_source.Manifest
      init_args: {path: rows.jsonl, prompt: "{q}", target: "{a}"}
    text:
      class_path: kebyt5_xm.data.denoise.Denoising
      init_args: {stores: {ko: ko}}
trainer:
  strategy: {class_path: kebyt5_xm.sharding.FSDP2}
  max_steps: 7
"""
"""RUN/config.yaml of a version with other class paths."""


@pytest.fixture(autouse=True)
def forget_printed_names() -> None:
    trust._print_renamed.cache_clear()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonargparse, in calls from Lightning
def test_a_run_with_former_class_paths_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_run.write_stores(tmp_path)
    Path("rows.jsonl").write_text('{"q": "1", "a": "2"}\n', encoding="utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(OLD_RUN, encoding="utf-8")
    task, data = build_task([str(path)], random_weights=True)
    assert isinstance(data.sources["rows"], Manifest)
    assert isinstance(data.sources["text"], Denoising)
    assert task.backbone.shape is not None
    merged = recipes.merge([str(path)])
    assert merged["trainer"]["strategy"]["class_path"] == "kebyt5_xm.training.sharding.FSDP2"
    assert Run(tmp_path).config["data"]["sources"]["text"]["class_path"] == "kebyt5_xm.data.Denoising"
    printed = capsys.readouterr().err
    for former in ("data.manifest_source.Manifest", "data.denoise.Denoising", "sharding.FSDP2"):
        former = f"kebyt5_xm.{former}"
        now = trust.RENAMED[former]
        assert printed.count(f"'{former}' is now '{now}'; the new name is used") == 1


def test_every_class_is_where_the_table_says() -> None:
    for now in trust.RENAMED.values():
        module, _, name = now.rpartition(".")
        assert isinstance(getattr(__import__(module, fromlist=[name]), name), type)


def test_an_export_with_former_class_paths_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its config.json names a class by a former path; the weights are unchanged."""
    monkeypatch.setitem(trust.RENAMED, "kebyt5_xm.old_room.Linear", "kebyt5_xm.adapters.Linear")
    model = tiny_model()
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    text = config.read_text(encoding="utf-8")
    assert "kebyt5_xm.adapters.Linear" in text
    config.write_text(
        text.replace("kebyt5_xm.adapters.Linear", "kebyt5_xm.old_room.Linear"), encoding="utf-8"
    )
    again = CrossModalT5.from_pretrained(tmp_path)
    for (name, tensor), (other, same) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other
        assert tensor.equal(same)


def test_an_unknown_name_is_refused_with_a_suggestion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load(OLD_RUN)
    recipe["data"]["sources"]["rows"]["class_path"] = "kebyt5_xm.data.Manifst"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["lint", "-c", str(path)])
    assert ended.value.code == 2
    assert "did you mean 'Manifest'" in capsys.readouterr().err


def test_aliases_of_a_third_party_recipe_are_visited_once(tmp_path: Path) -> None:
    """The config.yaml of a run may repeat blocks a million times, or contain itself."""
    levels = ["a0: &a0 [{class_path: kebyt5_xm.data.denoise.Denoising}]"]
    levels += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 64)]
    (tmp_path / "config.yaml").write_text("\n".join([*levels, "me: &me [*me]"]), encoding="utf-8")
    found = Run(tmp_path).config
    assert found["a0"][0]["class_path"] == "kebyt5_xm.data.Denoising"
    assert found["a63"][1] is found["a62"]
