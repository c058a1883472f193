"""Errors of recipes before torch is imported: with file, line, key and suggestion."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kebyt5_xm.commands.cli import main
from kebyt5_xm.errors import UserError
from kebyt5_xm.training import signatures, trainer_options
from kebyt5_xm.training.recipe_check import BLOCKS, check, check_arguments

ROOT = Path(__file__).resolve().parents[2]
ENCODER = "encoder: {class_path: encoders.stems.PatchEncoder, init_args: {"
SOURCE = "data:\n sources:\n  s: {class_path: kebyt5_xm.data."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", r"line 1: modle: .*did you mean 'model'"),
        ("modalitys: {}", r"line 1: modalitys: .*did you mean 'model\.modalities'"),
        ("model:\n modalitys: {}", r"line 2: model\.modalitys: .*did you mean 'modalities'"),
        ("model:\n sources: {}", r"line 2: model\.sources: .*did you mean 'data\.sources'"),
        ("model: {backbone: {siz: small}}", r"model\.backbone\.siz: .*did you mean 'size'"),
        ("model: {groups: {a: {patern: x}}}", r"model\.groups\.a\.patern: .*did you mean 'pattern'"),
        ("model: {lora: {a: {rnk: x}}}", r"model\.lora\.a\.rnk: .*did you mean 'rank'"),
        ("model: {modalities: [image]}", r"model\.modalities: found \['image'\], expected a mapping"),
        ("data: null", "data: found None, expected a mapping"),
        (
            f"model:\n modalities:\n  image:\n   {ENCODER}pach_size: 3}}}}",
            r"line 4: model\.modalities\.image\.encoder\.init_args\.pach_size: .*did you mean 'patch_size'",
        ),
        (
            f"{SOURCE}Manifst}}",
            r"line 3: data\.sources\.s\.class_path: cannot import .*did you mean 'Manifest'",
        ),
        ("data: {sources: {s: {class_path: kebyt5.X}}}", "No module named 'kebyt5'; install the package"),
        (
            "data: {sources: {s: {class_path: kebyt5_xm.dta.X}}}",
            r"No module named 'kebyt5_xm\.dta'; did you mean 'data'",
        ),
        ("data: {sources: {s: {class_path: encoders.tim.X}}}", "did you mean 'timm'"),
        (f"{SOURCE}Manifest, init_arg: {{}}}}", "did you mean 'init_args'"),
        ("data: {sources: {s: {clas_path: a.B}}}", "did you mean 'class_path'"),
        (f"{SOURCE}Manifest, init_args: {{limits: {{max_pixel: 3}}}}}}", "did you mean 'max_pixels'"),
        ("model: {optimizer: {class_path: torch.optim.AdanW}}", "did you mean 'AdamW'"),
        (
            "model: {optimizer: {class_path: torch.optim.AdamW, init_args: {l: 1}}}",
            r"init_args\.l: .*did you mean 'lr'",
        ),
        ("trainer: {max_step: 3}", r"trainer\.max_step: .*did you mean 'max_steps'"),
        ("forgetting: {tolerence: 1}", "did you mean 'tolerance'"),
    ],
)
def test_an_error_names_its_place(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"(?s)mine.yaml {message}" if "line" in message else message):
        check([str(path)])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--modle.backbone.size", "did you mean 'model'"),
        (
            "--model.backbone.siz=small",
            "--model.backbone.siz: 'siz' is not accepted by Backbone; did you mean 'size'",
        ),
        ("--backbone.size", "did you mean 'model.backbone'"),
        ("--trainer.max_step", "did you mean 'max_steps'"),
        ("--run-dir", "did you mean 'run_dir'"),
    ],
)
def test_a_misspelt_option_is_refused_as_early(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_arguments(["fit", option, "3"])


@pytest.mark.parametrize("option", ["-c", "--config", "--trust", "-c=", "--trust="])
def test_an_option_without_its_value_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"found {option.rstrip('=')} without a value; expected one after it"):
        check_arguments(["fit", option])


def test_known_options_pass() -> None:
    paths = (
        "data.sources.text.init_args.weight=1",
        "trainer.callbacks+=a.B",
        "model.groups.a.lr",
        "ckpt_path",
    )
    check_arguments(["fit", *(f"--{path}" for path in paths), "--help", "--print_config"])
    check_arguments(["fit", "--trainer.callbacks.help", "a.B", "--model.modalities.image.encoder.x", "3"])


def test_the_place_is_in_the_last_file_that_has_the_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("trainer:\n max_stepp: 1\n")
    (tmp_path / "b.yaml").write_text("trainer:\n max_steps: 1\n\n max_stepp: 2\n")
    with pytest.raises(UserError, match=r"b\.yaml line 4"):
        check([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_passes(path: Path) -> None:
    check([str(path)])


def test_the_options_of_all_blocks_can_be_read_from_source() -> None:
    assert [owner for owner in BLOCKS.values() if not signatures.read_options(owner)] == []


def test_options_read_from_source_are_those_of_the_class() -> None:
    import inspect

    from kebyt5_xm.data import Manifest
    from kebyt5_xm.training.groups import Group

    assert list(signatures.read_options("kebyt5_xm.data.Manifest") or ()) == list(
        inspect.signature(Manifest).parameters
    )
    assert list(signatures.read_options("kebyt5_xm.training.groups.Group") or ()) == list(
        inspect.signature(Group).parameters
    )


def test_uncertain_classes_are_left_to_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_to_check.py").write_text(
        "from os.path import *\nimport sys\nclass Open:\n    def __init__(self, a, **kwargs): ...\n"
        "class Below(Open): ...\nMade = type('Made', (), {})\nif sys.platform: \n    class Twice: ...\n"
        "else:\n    class Twice: ...\nclass Plain(Exception): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("Open", "Below", "Made", "Twice", "Plain", "join", "absent"):
        path = f"mine_to_check.{name}"
        assert (signatures.find_missing(path), signatures.read_options(path)) == (None, None)


def test_a_misspelt_key_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("modle: {}\n")
    program = (
        "import sys\nfrom kebyt5_xm.errors import UserError\n"
        "from kebyt5_xm.training.recipe_check import check_arguments\n"
        "heavy = {'torch', 'lightning', 'transformers'}\ntry:\n    check_arguments(['fit', '-c', sys.argv[1]])\n"
        "except UserError as error:\n    print(error, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "mine.yaml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().endswith("did you mean 'model'? []")


@pytest.mark.parametrize("command", ["doctor", "lint", "cache", "preview"])
def test_every_command_that_takes_recipes_checks_them(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("modle: {}\n")
    with pytest.raises(SystemExit) as ended:
        main([command, "-c", str(tmp_path / "mine.yaml")])
    assert ended.value.code == 2
    assert "mine.yaml line 1: modle: " in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.startswith("kebyt5_xm")


# -- options of the trainer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("limit_train_batches", 1),
        ("limit_train_batches", 2),
        ("limit_train_batches", True),
        ("limit_train_batches", 0.5),
        ("overfit_batches", 1),
        ("overfit_batches", False),
        ("fast_dev_run", 1),
        ("fast_dev_run", True),
        ("max_epochs", 1.0),
        ("max_epochs", True),
        ("enable_checkpointing", 1),
        ("barebones", 0),
        ("precision", 16),
        ("precision", "16"),
        ("precision", "16-true"),
        ("precision", "16-mixed"),
        ("precision", "transformer-engine-float16"),
        ("plugins", [{"class_path": "a.HalfPrecision", "init_args": {"precision": "16-true"}}]),
        ("plugins", "16-mixed"),
        ("strategy", {"class_path": "a.DeepSpeed", "init_args": {"config": {"fp16": {"enabled": True}}}}),
    ],
)
def test_an_option_is_refused_by_value_and_type(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"trainer.{option}"):
        trainer_options.check({option: value}, is_complete=False)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("limit_train_batches", 1.0),
        ("limit_train_batches", None),
        ("overfit_batches", 0),
        ("overfit_batches", 0.0),
        ("fast_dev_run", 0),
        ("fast_dev_run", False),
        ("max_epochs", 1),
        *(
            ("precision", name)
            for name in (None, 32, 64, "32", "64", "bf16", "bf16-true", "bf16-mixed", "32-true")
        ),
        ("precision", "64-true"),
        ("precision", "transformer-engine"),
        ("strategy", "ddp"),
        ("plugins", None),
    ],
)
def test_allowed_values_pass(option: str, value: Any) -> None:
    trainer_options.check({option: value}, is_complete=False)


def test_every_precision_of_lightning_is_known() -> None:
    from typing import get_args

    from lightning.fabric.plugins.precision import precision as names

    known = {
        str(name)
        for kind in (names._PRECISION_INPUT_STR, names._PRECISION_INPUT_STR_ALIAS, names._PRECISION_INPUT_INT)
        for name in get_args(kind)
    }
    half = {name for name in known if "16" in name and "bf16" not in name}
    assert half == set(trainer_options.FP16_NAMES)
