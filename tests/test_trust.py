"""Code is never imported from a third-party folder, and from the working folder last, for every command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import yaml
from tiny_model import SHAPE, SPECS, tiny_model, write_files

from kebyt5_xm import trust
from kebyt5_xm.commands import cli
from kebyt5_xm.commands.export.export import export_backbone
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.origin import copy_terms, record
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.model.runs.checkpoint_reading import stored_tensors
from kebyt5_xm.training import cli as training
from kebyt5_xm.training import recipe_imports
from kebyt5_xm.training.from_recipes import build_task

pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")

HOME = Path(trust.__file__).parents[1]
SHADOWS = (
    "encoders/__init__",
    "encoders/stems",
    "argparse",
    "yaml",
    "numpy",
    "torch/__init__",
    "safetensors",
)
MARK = (
    "import os, pathlib\npathlib.Path(os.environ.get('MARK', 'mark'), __name__.partition('.')[0]).touch()\n"
)
"""Code of a module that creates a file with its name in the folder MARK when it is imported."""

METRIC = """
from kebyt5_xm.metrics import MeanMetric

class Half(MeanMetric):
    @property
    def name(self): return "half"
    def figure(self, answer): return 0.5
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Working folder with an export, and with modules named like this package's and its libraries'."""
    folder, marks = tmp_path / "third_party", tmp_path / "marks"
    marks.mkdir()
    model = tiny_model()
    model.save_pretrained(folder)
    for name in (*SHADOWS, "evil"):
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(MARK)
    write_files(folder)
    monkeypatch.setenv("MARK", str(marks))
    monkeypatch.chdir(folder)
    before = list(sys.path)
    yield folder
    assert list(marks.iterdir()) == []
    assert "evil" not in sys.modules
    sys.path[:] = before


def run_elsewhere(*words: str, **variables: str) -> str:
    """Run Python in the working folder, which `-m` and `-c` put first on the path; return stdout."""
    environment = {**os.environ, "PYTHONPATH": str(HOME), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_third_party_export_is_used_in_its_own_folder(third_party: Path) -> None:
    asked = ("generate", ".", "--prompt", "가", "--audio", "b.wav", "--max-length", "2")
    first = run_elsewhere("-m", "kebyt5_xm", *asked)
    trailing = {"PYTHONPATH": f"{HOME}{os.pathsep}"}  # an empty part means the working folder
    script = (
        "import sys\nfrom kebyt5_xm.__main__ import main\nmain(sys.argv[1:])"  # the script that pip installs
    )
    assert run_elsewhere("-P", "-c", script, *asked, **trailing) == first


@pytest.mark.slow
def test_from_pretrained_imports_nothing_from_the_working_folder(third_party: Path) -> None:
    for name in (
        "argparse",
        "yaml",
        "numpy",
        "torch/__init__",
        "safetensors",
    ):  # without them, the user's own import statements would import these
        (third_party / f"{name}.py").unlink()
    (third_party / "torch").rmdir()
    program = (
        "from pathlib import Path\nfrom kebyt5_xm.model.cross_modal import CrossModalT5\n"
        "import sys, encoders\n"
        f"sys.modules.pop('soundfile', None)\nPath('soundfile.py').write_text({MARK!r})\n"
        "m = CrossModalT5.from_pretrained('.')\nm.answer([Path('b.wav')], max_new_tokens=2)\n"
        "print(encoders.__file__, sys.path[0] == '')"
    )
    assert run_elsewhere("-c", program).split() == [str(HOME / "encoders" / "__init__.py"), "True"]


def test_another_package_named_encoders_is_refused(
    third_party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = type(sys)("encoders")
    theirs.__path__ = [str(third_party / "encoders")]
    theirs.__file__ = str(third_party / "encoders" / "__init__.py")
    monkeypatch.setitem(sys.modules, "encoders", theirs)
    with pytest.raises(UserError, match=r"another package 'encoders' .*third_party.*give yours another name"):
        CrossModalT5.from_pretrained(third_party)
    with pytest.raises(UserError, match="another package 'encoders'"):
        CrossModalProcessor.from_pretrained(third_party)


def test_the_working_folder_is_removed_from_the_path_and_restored(
    third_party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = ["", "/elsewhere", str(third_party), *[p for p in sys.path if p not in ("", str(third_party))]]
    monkeypatch.setattr(sys, "path", list(theirs))
    with trust.without_working_folder():
        assert not {"", str(third_party)} & set(sys.path)
    assert sys.path == theirs
    with trust.without_working_folder(["evil"]):
        assert (sys.path[0], sys.path[-1]) == ("/elsewhere", str(third_party))
    with trust.without_working_folder(["yaml", "absent"]):  # found elsewhere, or nowhere
        assert str(third_party) not in sys.path
    trust.search_working_folder_last()
    assert [entry for entry in sys.path if entry in ("", str(third_party))] == [sys.path[-1]]


EVIL: dict[str, Callable[[dict[str, Any]], Any]] = {
    "encoder": lambda r: r["model"].update(
        modalities={
            "image": {"encoder": {"class_path": "evil.Encoder"}, "adapter": SPECS["image"]["adapter"]}
        }
    ),
    "source": lambda r: r["data"]["sources"]["text"].update(class_path="evil.Source"),
    "callback": lambda r: r["trainer"].update(callbacks=[{"class_path": "evil.Callback"}]),
    "short form": lambda r: r["model"].update(optimizer="evil.Optimizer"),
    "short form in a list": lambda r: r["trainer"].update(callbacks=["evil.Callback"]),
    "callable": lambda r: r["trainer"].update(
        strategy={
            "class_path": "lightning.pytorch.strategies.FSDPStrategy",
            "init_args": {"auto_wrap_policy": "evil.policy"},
        }
    ),
    "library's": lambda r: r["model"].update(optimizer="subprocess.Popen"),
    "augmentation": lambda r: r["data"]["sources"].update(captions=_augmented("evil.Change")),
    "function in an augmentation": lambda r: r["data"]["sources"].update(
        captions=_augmented("torchvision.transforms.v2.Lambda", {"lambd": "evil.change"})
    ),
}


def _augmented(class_path: str, init_args: dict[str, Any] | None = None) -> dict[str, Any]:
    step = {"class_path": class_path, "init_args": init_args or {}}
    prompt = {"path": "rows.jsonl", "prompt": "{picture:image}", "target": "{caption}"}
    return {"class_path": "kebyt5_xm.data.Manifest", "init_args": {**prompt, "augment": {"image": [step]}}}


@pytest.fixture
def third_party_run(third_party: Path) -> Callable[[str], Path]:
    """Return a function that makes a run in the working folder whose recipe names an untrusted class."""

    def make(kind: str) -> Path:
        recipe = tiny_run.recipe(third_party, "out")
        EVIL[kind](recipe)
        tiny_run.write_stores(third_party, 5003)
        (third_party / "config.yaml").write_text(yaml.safe_dump(recipe))
        (third_party / "checkpoints").mkdir()
        return third_party

    return make


@pytest.mark.parametrize("kind", EVIL)
def test_a_third_party_recipe_imports_nothing(
    kind: str, third_party_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    third_party_run(kind)
    commands: list[tuple[Callable[[list[str]], None], list[str]]] = [
        (training.main, ["fit", "-c", "config.yaml"]),
        (cli.main, ["doctor", "-c", "config.yaml"]),
    ]
    if kind == "encoder":
        Path("other.yaml").write_text(Path("config.yaml").read_text())  # next to checkpoints/
        commands += [
            (training.main, ["validate", "-c", "other.yaml", "--ckpt_path", "best"]),
            *((cli.main, [name, "-c", "config.yaml"]) for name in ("cache", "lint", "preview")),
            (cli.main, ["report", "."]),
        ]
    for main, words in commands:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr().err
        assert ended.value.code == 2, (words, said)
        named = "subprocess" if kind == "library's" else "evil"
        assert [line for line in said.splitlines() if line.startswith("error: ") and named in line], (
            words,
            said,
        )
        assert "--trust" in said, (words, said)


def test_untrusted_classes_of_runs_and_exports_are_refused(
    third_party_run: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    run = third_party_run("encoder")
    (run / "config.json").unlink()
    record(
        Backbone(**yaml.safe_load((run / "config.yaml").read_text())["model"]["backbone"]), run / "backbone"
    )
    state = {"state_dict": {"model.backbone.shared.weight": torch.ones(3)}, "global_step": 7}
    torch.save(state, run / "checkpoints" / "step=7.ckpt")
    for words in (["generate", ".", "--prompt", "x"], ["export", ".", "--out", str(tmp_path / "out")]):
        with pytest.raises(UserError, match=r"'evil' is not trusted, so it was not imported.*--trust evil"):
            cli.run(words[0], words[1:])


@pytest.fixture
def own_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's recipe with a custom metric in the working folder, and a file named like a library."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_metric.py").write_text(METRIC)
    (tmp_path / "rapidfuzz.py").write_text(
        "raise AssertionError('a file of the working folder hides a library')"
    )
    (tmp_path / "rows.jsonl").write_text('{"n": 7, "word": "일곱"}\n' * 3, encoding="utf-8")
    tiny_run.write_stores(tmp_path, 5003)
    recipe = tiny_run.recipe(tmp_path, "run", max_steps=2, val_check_interval=1)
    recipe["data"]["sources"]["pairs"] = {
        "class_path": "kebyt5_xm.data.Manifest",
        "init_args": {
            "path": "rows.jsonl",
            "validation": "rows.jsonl",
            "prompt": "{n}",
            "target": "{word}",
            "metrics": [
                {"class_path": "own_metric.Half"},
                {"class_path": "kebyt5_xm.metrics.CharacterErrorRate"},
            ],
        },
    }
    yield tiny_run.write_recipe(tmp_path, "recipe", recipe)
    for name in ("own_metric", "rapidfuzz"):
        if str(getattr(sys.modules.get(name), "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.slow
def test_a_module_of_the_working_folder_is_imported_for_the_users_recipe(
    own_recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    training.main(["fit", "-c", own_recipe])
    assert "val/half/pairs" in Path("run/metrics.csv").read_text()
    assert "rapidfuzz" not in sys.modules or not str(sys.modules["rapidfuzz"].__file__).startswith(
        os.getcwd()
    )
    del sys.modules["own_metric"]
    sys.path.remove(os.getcwd())
    cli.main(["lint", "-c", own_recipe])
    cli.main(["preview", "-c", own_recipe])
    del sys.modules["own_metric"]
    sys.path.remove(os.getcwd())
    with pytest.raises(UserError, match="'own_metric' is not trusted"):
        build_task(["run/config.yaml"], random_weights=False)
    assert "own_metric" not in sys.modules
    assert os.getcwd() not in sys.path
    _, data = build_task(["run/config.yaml"], False, ["own_metric"])
    assert "pairs" in data.sources
    with pytest.raises(SystemExit):
        training.main(["fit", "-c", "run/config.yaml"])  # not trusted
    assert "--trust own_metric" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        training.main(["fit", "-c", "run/config.yaml", "--trust", "own_metric"])
    assert "holds a run already" in capsys.readouterr().err


def test_the_import_limit_of_jsonargparse_ends_with_its_block() -> None:
    from jsonargparse._common import parsing_settings

    before = dict(parsing_settings)
    with recipe_imports._only_imports_of(["kebyt5_xm"]):
        assert parsing_settings != before
    assert parsing_settings == before


def test_repeated_parts_of_a_recipe_are_visited_once() -> None:
    recipe: dict[str, Any] = {"class_path": "evil.X"}
    recipe["self"] = [recipe] * 3
    assert trust.find_packages(recipe) == ["evil"]
    wide: Any = {"class_path": "evil.X"}
    for _ in range(64):  # as with YAML aliases
        wide = [wide, wide]
    assert trust.find_packages({"data": wide}) == ["evil"]


def test_backbones_ignore_code_named_in_config_json() -> None:
    """An attention kernel or a module that a config.json names is not loaded."""
    from kebyt5_xm.model.t5 import t5_config

    fields = {
        **Backbone(size="mini").config().to_dict(),
        "attn_implementation": "someone/kernel",
        "auto_map": {"x": "y"},
    }
    config = t5_config(fields)
    assert config._attn_implementation != "someone/kernel"
    assert not hasattr(config, "auto_map")


class Evil:
    """Pickled as a call of a function of this module."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_pickles_in_checkpoint_folders_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    import torch

    monkeypatch.chdir(tmp_path)
    for name in ("sharded", "deepspeed"):
        (tmp_path / name).mkdir()
    (tmp_path / "sharded" / ".metadata").write_bytes(pickle.dumps({"state": Evil()}))
    (tmp_path / "deepspeed" / "latest").write_text("checkpoint")
    torch.save({"module": {"x": torch.ones(3)}, "ds_config": Evil()}, tmp_path / "deepspeed" / "states.pt")
    for name in ("sharded", "deepspeed"):
        with pytest.raises(UserError, match=r"names \w+\.mkdir in a pickle.*was not opened"):
            stored_tensors(tmp_path / name, "model.")
    (tmp_path / "sharded" / ".metadata").write_bytes(b"\x80\x04\x95")
    with pytest.raises(UserError, match="sharded' cannot be read"):
        stored_tensors(tmp_path / "sharded", "model.")
    assert not (tmp_path / "ran").exists()


def test_links_out_of_a_model_are_not_copied(tmp_path: Path) -> None:
    """An export copies licence files and is published, so a link must not copy other files."""
    theirs, secret = tmp_path / "theirs", tmp_path / "secret"
    secret.write_text("a key")
    export_backbone(Backbone(shape=SHAPE).build(), theirs, denoising={}, cards={"README.md": ""})
    (theirs / "origin").mkdir()
    (theirs / "origin" / "LICENSE").symlink_to(secret)
    with pytest.raises(UserError, match=r"LICENSE' is a link to '.*secret'"):
        record(Backbone(weights=str(theirs)), tmp_path / "recorded")
    (theirs / "origin" / "LICENSE").unlink()
    (theirs / "origin" / "LICENSE").symlink_to(theirs / "README.md")
    record(Backbone(weights=str(theirs)), tmp_path / "again")
    (tmp_path / "again" / "origin" / "NOTICE").symlink_to(secret)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"NOTICE' is a link to '.*secret'"):
        copy_terms(tmp_path / "again", tmp_path / "out")


def test_an_index_of_shards_names_files_of_its_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export_backbone(Backbone(shape=SHAPE).build(), folder, denoising={})
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    for listed in ("../elsewhere.safetensors", str(tmp_path / "elsewhere.safetensors"), 3, "x.txt"):
        index = {"weight_map": {"shared.weight": listed}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match="expected names of weight files in the same folder"):
            Backbone(weights=str(folder)).build()
