"""Recipes merge key by key, a changed class replaces its block, and every recipe here is readable."""

import unicodedata
from pathlib import Path

import pytest
import yaml

from kebyt5_xm.errors import UserError
from kebyt5_xm.training.recipe_yaml import dump, to_native
from kebyt5_xm.training.recipes import load, merge, overlay, to_yaml


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


def test_a_changed_class_path_drops_the_old_init_args() -> None:
    below = {"optimizer": {"class_path": "A", "init_args": {"lr": 1, "only_a": 2}}}
    same = overlay(below, {"optimizer": {"class_path": "A", "init_args": {"lr": 5}}})
    other = overlay(below, {"optimizer": {"class_path": "B", "init_args": {"lr": 3}}})
    assert same["optimizer"]["init_args"] == {"lr": 5, "only_a": 2}
    assert other["optimizer"]["init_args"] == {"lr": 3}


def test_null_replaces_a_value() -> None:
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


def test_null_removes_an_entry_of_every_mapping_of_names(tmp_path: Path) -> None:
    below = {
        "data": {
            "seed": 7,
            "sources": {
                "a": {"init_args": {"stores": {"ko": "k", "zh": "z"}, "labels": {"0": "b", "1": "c"}}},
                "b": {"weight": 2},
            },
        },
        "model": {
            "modalities": {"image": modality("encoders.x.A")},
            "groups": {"slow": {"pattern": "*"}, "fast": {"pattern": "*"}},
            "lora": {"q": {"pattern": "*"}},
        },
    }
    above = {
        "data": {
            "sources": {
                "a": {"init_args": {"stores": {"zh": None}, "labels": {"1": None}}},
                "b": None,
                "never": None,
            }
        },
        "model": {
            "modalities": {"image": None},
            "groups": {"slow": None},
            "lora": {"q": None},
            "schedule": None,
        },
    }
    paths = [write(tmp_path, "below.yaml", below), write(tmp_path, "above.yaml", above)]
    assert merge(paths) == {
        "data": {"seed": "7", "sources": {"a": {"init_args": {"stores": {"ko": "k"}, "labels": {"0": "b"}}}}},
        "model": {"modalities": {}, "groups": {"fast": {"pattern": "*"}}, "lora": {}, "schedule": None},
    }


GUESSED = [
    "no",
    "yes",
    "on",
    "off",
    "y",
    "1",
    "1.0",
    "0x10",
    "012",
    "1:30",
    "1e3",
    "1_000",
    "null",
    "~",
    "true",
]
GUESSED += ["2020-01-01", "=", ".inf"]


@pytest.mark.parametrize("word", GUESSED)
def test_a_key_is_its_written_text(word: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"data: {{sources: {{{word}: {{stores: {{{word}: a, '{word}x': b}}}}}}}}", encoding="utf-8"
    )
    assert load(path) == {"data": {"sources": {word: {"stores": {word: "a", f"{word}x": "b"}}}}}


def test_a_value_is_its_written_text_until_its_type_is_known(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"data: [{', '.join(GUESSED)}, !!str 3, '4']", encoding="utf-8")
    values = load(path)["data"]
    assert values == [None if word in ("null", "~") else word for word in [*GUESSED, "3", "4"]]
    parsed = yaml.safe_load(dump({"given": values}))["given"]
    assert parsed[:2] == [False, True]
    assert parsed[5:8] == [1, 1.0, 16]
    assert parsed[-2:] == ["3", "4"]
    assert to_native(values)[0] is False
    assert to_native(values)[10] == 1000.0


def test_only_classes_whose_options_may_have_no_type_get_numbers(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "trainer: {max_steps: 7, plugins: [{class_path: a.B, init_args: {x: 1}}]}\n"
        "model: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-3}}}\n"
        "data: {sources: {s: {class_path: kebyt5_xm.data.Manifest, init_args: {target: 1.0, labels: [no, 1e3]}}}}\n",
        encoding="utf-8",
    )
    parsed = yaml.safe_load(to_yaml(merge([str(path)])))
    assert parsed["trainer"] == {"max_steps": 7, "plugins": [{"class_path": "a.B", "init_args": {"x": 1}}]}
    assert '"lr": 1e-3\n' in to_yaml(merge([str(path)]))
    assert parsed["data"]["sources"]["s"]["init_args"] == {"target": "1.0", "labels": ["no", "1e3"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3 has the key 'a' a second time \(first in line 1\)"),
        ("a:\n  no: 1\n  'no': 2\n", r"line 3 has the key 'no' a second time.* in a:"),
        ("? [a, b]\n: 1\n", "line 1 has a list as a key"),
        ("? {a: b}\n: 1\n", "line 1 has a mapping as a key"),
        ("a: &x [*x]\n", "line 1 has an alias of a block that contains it"),
        ("a: &x {b: *x}\n", "line 1 has an alias of a block that contains it"),
        ("a: !!python/name:os.system x\n", "line 1 has the tag"),
        ("a: !mine {b: 1}\n", "line 1 has the tag !mine"),
        ("<<: 3\n", "line 1 has '<<' with a value that is no mapping"),
        ("a: 1\n---\nb: 2\n", "line 2 is not YAML"),
        ("a:\n\tb: 1\n", "line 2 is not YAML"),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "recipe.yaml")


def test_merge_keys_of_yaml_add_missing_keys(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "a: &a {x: 1, no: 2}\nb: &b {x: 3, z: 4}\nc: {<<: [*a, *b], z: 5}\nd: {y: 1, <<: *a}\n'<<': 6\n",
        encoding="utf-8-sig",
    )
    recipe = load(tmp_path / "recipe.yaml")
    assert recipe["c"] == {"x": "1", "no": "2", "z": "5"}
    assert recipe["d"] == {"y": "1", "x": "1", "no": "2"}
    assert recipe["<<"] == "6"


def test_a_name_in_another_unicode_form_is_the_same_name(tmp_path: Path) -> None:
    paths = []
    for form, weight in (("NFD", 1), ("NFC", 2)):
        path = tmp_path / f"{form}.yaml"
        name = unicodedata.normalize(form, "각하")
        path.write_text(
            f"data: {{sources: {{{name}: {{init_args: {{weight: {weight}}}}}}}}}\n", encoding="utf-8"
        )
        paths.append(str(path))
    assert merge(paths) == {"data": {"sources": {"각하": {"init_args": {"weight": "2"}}}}}


def test_aliases_of_aliases_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 8)]
    (tmp_path / "a.yaml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match="more than 100000 values behind its aliases"):
        merge([str(tmp_path / "a.yaml")])
