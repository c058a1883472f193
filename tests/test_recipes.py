"""Recipes merge key by key, a changed class replaces its block, and every recipe here is readable."""

from pathlib import Path

import pytest
import yaml

from kebyt5_xm.errors import UserError
from kebyt5_xm.recipes import merge, overlay


def write(folder: Path, name: str, recipe: dict) -> str:
    path = folder / name
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def modality(class_path: str, **init_args: object) -> dict:
    return {"encoder": {"class_path": class_path, "init_args": init_args}}


def test_siblings_survive_an_overlay_and_inputs_stay_unchanged() -> None:
    below = {"model": {"modalities": {"image": {"a": 1}}, "x": 1}, "trainer": {"max_steps": 7}}
    above = {"model": {"modalities": {"speech": {"b": 2}}, "x": 3}}
    merged = overlay(below, above)
    assert merged["model"] == {"modalities": {"image": {"a": 1}, "speech": {"b": 2}}, "x": 3}
    assert merged["trainer"] == {"max_steps": 7}
    assert below["model"]["modalities"] == {"image": {"a": 1}}


def test_a_changed_class_path_takes_its_old_init_args_with_it() -> None:
    below = {"optimizer": {"class_path": "A", "init_args": {"lr": 1, "only_a": 2}}}
    same = overlay(below, {"optimizer": {"class_path": "A", "init_args": {"lr": 5}}})
    other = overlay(below, {"optimizer": {"class_path": "B", "init_args": {"lr": 3}}})
    assert same["optimizer"]["init_args"] == {"lr": 5, "only_a": 2}
    assert other["optimizer"]["init_args"] == {"lr": 3}


def test_null_takes_a_value_back() -> None:
    assert overlay({"size": "small"}, {"size": None}) == {"size": None}


def test_two_encoder_classes_for_one_modality_are_refused_with_both_names(tmp_path: Path) -> None:
    first = write(tmp_path, "a.yaml", {"model": {"modalities": {"image": modality("encoders.x.A")}}})
    second = write(tmp_path, "b.yaml", {"model": {"modalities": {"image": modality("encoders.x.B")}}})
    with pytest.raises(UserError, match=r"image.*encoders\.x\.A.*a\.yaml.*encoders\.x\.B.*b\.yaml"):
        merge([first, second])


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a: [1", "not YAML"), (b"- 1\n- 2\n", "expected a mapping"), (b"\xff\xfe\xfd", "cannot read")],
)
def test_unusable_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"(?s)broken\.yaml.*{words}|{words}.*broken\.yaml"):
        merge([str(path)])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"absent\.yaml.*No such file"):
        merge(["absent.yaml"])


def test_null_takes_a_source_or_a_modality_out(tmp_path: Path) -> None:
    below = {
        "data": {"seed": 7, "sources": {"a": {"weight": 1}, "b": {"weight": 2}}},
        "model": {"modalities": {"image": modality("encoders.x.A")}},
    }
    above = {"data": {"sources": {"a": None, "never": None}}, "model": {"modalities": {"image": None}}}
    paths = [write(tmp_path, "below.yaml", below), write(tmp_path, "above.yaml", above)]
    expected = {"data": {"seed": 7, "sources": {"b": {"weight": 2}}}, "model": {"modalities": {}}}
    assert merge(paths) == expected
