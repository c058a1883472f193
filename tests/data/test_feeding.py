"""A modality that nothing feeds, and a column of paths that is used as text."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kebyt5_xm.data import DataModule, Manifest
from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.errors import UserError

PROMPT = "{image} {language}:"


def interfaces(**media: str) -> dict[str, Any]:
    return {name: SimpleNamespace(media=kind, fingerprint=str) for name, kind in media.items()}


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    rows = []
    for number in range(5):
        (tmp_path / f"{number}.PNG").write_bytes(b"")
        (tmp_path / f"{number}.wav").write_bytes(b"")
        names = {"image": f"{number}.PNG", "recording": f"{number}.wav", "gone": f"absent{number}.png"}
        rows.append({**names, "language": "ko", "text": f"see {number}.PNG"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "rows.jsonl")


def connected(manifest: str, prompt: str, known: dict[str, Any], **settings: Any) -> DataModule:
    data = DataModule({"s": Manifest(manifest, prompt, "{text}")}, global_batch_size=1, **settings)
    data._connect_sources(cast(Any, known))
    return data


def test_a_prompt_without_its_modality_is_refused(manifest: str) -> None:
    with pytest.raises(UserError, match=r"'image'.* holds paths of image files.*write \{image:image\}"):
        connected(manifest, PROMPT, interfaces(image="image"))
    with pytest.raises(UserError, match=r"write \{recording:speech\}"):
        connected(manifest, "{image:image} {recording}", interfaces(image="image", speech="audio"))


@pytest.mark.parametrize("prompt", ["{gone} {language}", "{text}", "{language}"])
def test_a_modality_that_no_source_feeds_is_refused(manifest: str, prompt: str) -> None:
    with pytest.raises(
        UserError, match=r"no source feeds the modality 'image'.*model\.modalities\.image: null"
    ):
        connected(manifest, prompt, interfaces(image="image"))


def test_a_modality_may_be_kept_on_purpose(manifest: str) -> None:
    connected(manifest, "{text}", interfaces(image="image"), idle_modalities=["image"])
    with pytest.raises(UserError, match=r"'imag' in data.idle_modalities.*did you mean 'image'"):
        connected(manifest, "{text}", interfaces(image="image"), idle_modalities=["imag"])
    with pytest.raises(UserError, match="but a source feeds it"):
        connected(manifest, "{image:image}", interfaces(image="image"), idle_modalities=["image"])


def test_paths_may_be_text_where_their_files_are_fed(manifest: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        connected(manifest, "{image:picture} {image} {recording}", interfaces(picture="image"))
    assert [record.getMessage().partition(" in ")[0] for record in caplog.records] == [
        "the column 'image'",
        "the column 'recording'",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2.46666666666667", "2.5"),
        ("2.25", "2.2"),
        (2.5, "2.5"),
        (3, "3.0"),
        ("-0.04", "0.0"),
        ("-0.06", "-0.1"),
        ("1e1", "10.0"),
    ],
)
def test_a_number_is_written_with_as_many_decimals_as_asked_for(value: Any, text: str) -> None:
    template = Template("{score:.1f}")
    assert template.render({"score": value}) == [text]
    assert (template.text_columns, template.modalities) == (("score",), ())


@pytest.mark.parametrize("value", ["", "two", "nan", "inf", True, "1" * 41, None, "1e400"])
def test_what_is_no_number_is_no_target(value: Any) -> None:
    with pytest.raises(UserError, match="column 'score'"):
        Template("{score:.1f}").render({"score": value})
