"""Bad input: one line `error: ...` on stderr, exit code 2, no traceback, nothing loaded and nothing overwritten.

Every case goes through the entry points that a user has: `train.py` and `kebyt5-xm`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_run

from kebyt5_xm.commands import cli
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.text.store import INDEX_NAME, VERSION
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.training import cli as training

# Lightning 2.6.6 instantiates classes through a method that jsonargparse 4.53 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")

Recipe = dict[str, Any]
Change = Callable[[Recipe, Path], None]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    tiny_run.write_stores(folder, 5003)
    return folder


@pytest.fixture
def refused(
    tmp_path: Path, stores: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that runs a command, checks that it was refused properly, and returns the message."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    monkeypatch.chdir(tmp_path)
    for language in tiny_run.WORDS:
        shutil.copytree(stores / language, tmp_path / language)

    def no_weights(self: Backbone) -> None:
        pytest.fail("weights were built before the error")

    monkeypatch.setattr(Backbone, "build", no_weights)

    def run(main: Callable[[list[str]], None], *words: str) -> str:
        before = contents(tmp_path)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        said = capfd.readouterr().err
        assert ended.value.code == 2, said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert said.rstrip().endswith(errors[0]), said
        assert "Traceback" not in said
        assert contents(tmp_path) == before
        return errors[0]

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Return the name of everything in a folder, with the content of files."""
    paths = folder.rglob("*")
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in paths}


def fit(folder: Path, change: Change, run: str = "run") -> list[str]:
    """Return the words of a fit on a tiny recipe changed by `change`."""
    recipe = tiny_run.recipe(folder, run)
    change(recipe, folder)
    return ["fit", "-c", tiny_run.write_recipe(folder, "recipe", recipe)]


def source(recipe: Recipe) -> Recipe:
    return recipe["data"]["sources"]["text"]["init_args"]


def set_in(block: Callable[[Recipe], Recipe], key: str, value: Any) -> Change:
    def change(recipe: Recipe, folder: Path) -> None:
        block(recipe)[key] = value

    return change


def newer_store(recipe: Recipe, folder: Path) -> None:
    path = folder / "ko" / INDEX_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": VERSION + 1}))


def truncated_store(recipe: Recipe, folder: Path) -> None:
    path = next((folder / "en").glob("*.bytes"))
    path.write_bytes(path.read_bytes()[:-101])


def short_store(recipe: Recipe, folder: Path) -> None:
    source(recipe)["inputs_length"] = 1024
    source(recipe)["noise_density"] = 0.1
    source(recipe)["stores"] = {"ko": tiny_run.write_stores(folder / "short", 101)["ko"]}


def other_size(recipe: Recipe, folder: Path) -> None:
    (folder / "theirs").mkdir()
    fields = {"model_type": "t5", "vocab_size": 384, "tie_word_embeddings": False, "d_model": 37}
    (folder / "theirs" / "config.json").write_text(json.dumps(fields))
    recipe["model"]["backbone"]["weights"] = str(folder / "theirs")


def hub(recipe: Recipe, folder: Path) -> None:
    recipe["model"]["backbone"] = {"weights": "someone/absent-byt5"}


def pattern(pattern: str) -> Change:
    return set_in(lambda recipe: recipe["model"], "groups", {"slow": {"pattern": pattern, "lr": 0.1}})


def pairs(metric: str) -> Change:
    """A second source, judged by `metric`."""

    def change(recipe: Recipe, folder: Path) -> None:
        path = folder / "pairs.jsonl"
        path.write_text(json.dumps({"n": 7, "word": "일곱"}) + "\n", encoding="utf-8")
        open_rows(path)  # its index is no harm, and here from before
        recipe["data"]["sources"]["pairs"] = {
            "class_path": "kebyt5_xm.data.Manifest",
            "init_args": {
                "path": str(path),
                "validation": str(path),
                "prompt": "{n}",
                "target": "{word}",
                "metrics": [{"class_path": metric}],
            },
        }

    return change


CASES: dict[str, tuple[Change, list[str]]] = {
    "unknown key": (
        set_in(lambda recipe: recipe["model"]["backbone"], "dropuot", 0.1),
        ["dropuot", "did you mean 'model.backbone.dropout'"],
    ),
    "unknown key of a source": (
        set_in(source, "inputs_lenght", 61),
        ["inputs_lenght", "did you mean 'inputs_length'"],
    ),
    "unknown block": (
        set_in(lambda recipe: recipe, "modle", {"slot_bias": "zero"}),
        ["modle.slot_bias", "did you mean 'model.slot_bias'"],
    ),
    "wrong type": (
        set_in(lambda recipe: recipe["data"], "micro_batch_size", "two"),
        ["micro_batch_size", "two", "int"],
    ),
    "wrong choice": (
        set_in(lambda recipe: recipe["model"]["backbone"], "size", "smal"),
        ["size", "smal", "did you mean 'small'"],
    ),
    "unknown class": (
        set_in(lambda recipe: recipe["data"]["sources"]["text"], "class_path", "kebyt5_xm.data.Denoisin"),
        ["kebyt5_xm.data.Denoisin"],
    ),
    "unknown metric": (
        pairs("kebyt5_xm.metrics.CharacterErorRate"),
        ["cannot import kebyt5_xm.metrics.CharacterErorRate", "did you mean 'CharacterErrorRate'"],
    ),
    "metric that does not fit": (
        pairs("kebyt5_xm.metrics.Accuracy"),
        ["pairs.jsonl", "Accuracy needs a source with labels", "`labels`"],
    ),
    "pattern without a match": (
        pattern("backbone.decodr.*"),
        ["model.groups.slow", "backbone.decodr.*", "did you mean 'backbone.decoder"],
    ),
    "no store": (
        set_in(source, "stores", {"ko": "nowhere/ko"}),
        ["nothing at nowhere/ko", "kebyt5-xm prepare text"],
    ),
    "newer store": (newer_store, [f"version {VERSION + 1}", f"up to {VERSION}", "upgrade"]),
    "truncated store": (truncated_store, [".bytes", "expected", "damaged"]),
    "store shorter than one example": (short_store, ["ko", "shorter than one example"]),
    "checkpoint of another size": (
        other_size,
        ["in the weights", "differ from `size` and `shape`", "d_model 32 (in the weights: 37)"],
    ),
    "missing hub file": (hub, ["someone/absent-byt5", "hf download someone/absent-byt5"]),
    "option of the trainer that is said elsewhere": (
        set_in(lambda recipe: recipe["trainer"], "max_epochs", 3),
        ["trainer.max_epochs 3", "trainer.max_steps is the length", "leave it out"],
    ),
    "option of the trainer that would be passed over": (
        set_in(lambda recipe: recipe["trainer"], "enable_checkpointing", False),
        ["trainer.enable_checkpointing False", "checkpoint_every"],
    ),
    "batches that do not divide": (
        set_in(lambda recipe: recipe["data"], "micro_batch_size", 3),
        ["global_batch_size 8", "micro_batch_size 3"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_is_refused(case: str, refused: Callable[..., str], tmp_path: Path) -> None:
    change, words = CASES[case]
    message = refused(training.main, *fit(tmp_path, change))
    assert [word for word in words if word not in message] == [], message


def unchanged(recipe: Recipe, folder: Path) -> None:
    pass


def test_an_existing_run_stays(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed_everything: 3\n")
    message = refused(training.main, *fit(tmp_path, unchanged))
    assert "holds a run already" in message
    assert "--ckpt_path last" in message


def test_command_lines_of_training(refused: Callable[..., str], tmp_path: Path) -> None:
    words = fit(tmp_path, unchanged)
    assert "did you mean 'trainer.max_steps'" in refused(training.main, *words, "--trainer.max_step", "3")
    assert "absent.yaml" in refused(training.main, "fit", "-c", "absent.yaml")
    assert "not a directory" in refused(training.main, *words, "--ckpt_path", "last")
    (tmp_path / "broken.ckpt").write_bytes(b"PK")
    assert "absent.ckpt" in refused(training.main, *words, "--ckpt_path", "absent.ckpt")
    assert "cannot be read" in refused(training.main, *words, "--ckpt_path", "broken.ckpt")
    assert "is a file" in refused(training.main, *words, "--run_dir", "recipe.yaml")
    assert "strategy" in refused(training.main, *words, "--trainer.strategy", "dpp")
    assert "random weights would be validated" in refused(training.main, "validate", *words[1:])


def test_commands(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    newer_store({}, tmp_path)
    truncated_store({}, tmp_path)
    prepare = ("prepare", "text", "empty.txt", "--language", "ko", "--workers", "1", "--out")
    assert "found 0 documents" in refused(cli.main, *prepare, "store")
    assert not (tmp_path / "store").exists()
    assert "--overwrite" in refused(cli.main, *prepare, "en")
    assert "absent.txt" in refused(
        cli.main, "prepare", "text", "absent.txt", "--language", "ko", "--out", "s"
    )
    assert f"version {VERSION + 1}" in refused(cli.main, "inspect", "ko")
    assert "damaged" in refused(cli.main, "inspect", "en")
    assert "not a directory" in refused(cli.main, "export", "runs/absent", "--out", "export")
    assert "did you mean 'export'" in refused(cli.main, "exprt", "run")
