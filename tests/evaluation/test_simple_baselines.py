"""Simple baselines: what each finds on data whose answer is known, and which features it may see."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_media import PatchesWithStatistics
from tiny_model import SPECS, tiny_model

from encoders.stems import LogMelEncoder, PatchEncoder
from encoders.stored import StoredFeatures
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.baseline_scores import SimpleBaselines
from kebyt5_xm.evaluation.baselines.frozen_encoders import feature_makers, pretrained
from kebyt5_xm.evaluation.baselines.media_features import (
    GRID,
    NUM_MELS,
    SEGMENTS,
    FeatureMaker,
    FrozenFeatures,
    Raw,
    log_mel,
    pool_grid,
    pool_sequence,
)
from kebyt5_xm.evaluation.baselines.questions import AT_ONCE, TooSlow
from kebyt5_xm.evaluation.baselines.simple import HeldOutRows, simple_baselines
from kebyt5_xm.metrics import AUPRC, Accuracy, Answer, CharacterErrorRate, ExactMatch, Metric, Pearson
from kebyt5_xm.model.modality import interface

COLOURS = {"red": (230, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 230)}
WORDS = {"ko": dict(zip(COLOURS, ("빨강", "초록", "파랑"), strict=True)), "en": {c: c for c in COLOURS}}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_colours(folder: Path) -> None:
    """Write 21 images in three colours, each asked about in two languages; the last seven are held out."""
    draw = np.random.default_rng(5)
    rows = []
    for n in range(21):
        colour = list(COLOURS)[n % 3]
        pixels = np.clip(np.array(COLOURS[colour]) + draw.normal(0, 9, (19, 23, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{n}.png")
        rows += [
            {"image": f"{n}.png", "language": tag, "word": words[colour]} for tag, words in WORDS.items()
        ]
    write_rows(folder / "train.jsonl", rows[:28])
    write_rows(folder / "held-out.jsonl", rows[28:])


def measure(
    folder: Path,
    prompt: str,
    target: str,
    metrics: Sequence[Metric],
    labels: list[str] | None = None,
    makers: dict[str, FeatureMaker] | None = None,
    **options: Any,
) -> SimpleBaselines:
    paths = str(folder / "train.jsonl"), str(folder / "held-out.jsonl")
    source = Manifest(paths[0], prompt, target, labels=labels, validation=paths[1])
    parts = {"image": PatchEncoder(16, out_dim=8), "speech": LogMelEncoder(12)}
    source.connect({name: interface(parts[name], Linear, 29) for name in source.modalities})
    held_out = source.held_out
    assert held_out is not None
    rows = range(len(held_out))
    asked = HeldOutRows(held_out, rows, [held_out.references(row) for row in rows], options.pop("missed", ()))
    return simple_baselines([source.training], asked, metrics, source.labels, makers or {}, **options)


def values(found: SimpleBaselines, metric: str) -> dict[str, float]:
    return {baseline.method: baseline.scores[metric].value for baseline in found.measured}


def test_texts_with_labels_are_told_apart_by_their_ngrams(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, str]:
        return {
            "text": f"{'좋' if n % 3 else '나쁘'}았다 {n * 37 % 101}",
            "label": "긍정" if n % 3 else "부정",
        }

    write_rows(tmp_path / "train.jsonl", [row(n) for n in range(31)])
    write_rows(tmp_path / "held-out.jsonl", [row(n) for n in range(31, 42)])
    found = measure(tmp_path, "{text} 감정:", "{label}", [Accuracy(), AUPRC()], ["긍정", "부정"])
    assert values(found, "accuracy") == {"constant": pytest.approx(8 / 11), "linear": 1.0}
    assert values(found, "auprc")["linear"] == pytest.approx(1.0)
    assert [baseline.features for baseline in found.measured] == [(), ("characters",)]
    assert (found.training_rows, found.of_rows) == (31, 31)


def test_answers_that_depend_on_the_prompt_and_the_image(tmp_path: Path) -> None:
    """One linear model of both cannot say 빨강 and red: each prompt has its own."""
    write_colours(tmp_path)
    metrics = [ExactMatch(), CharacterErrorRate()]
    arguments = (tmp_path, "{image:image} {language}:", "{word}", metrics)
    found = measure(*arguments, makers={"image": Raw("image")})
    assert values(found, "exact_match")["linear"] == 1.0
    assert values(found, "exact_match")["nearest"] == 1.0
    # By the most frequent word of each language: of seven held-out images two or three have one colour.
    assert values(found, "exact_match")["constant"] == pytest.approx(3 / 7, abs=1 / 7)
    assert {baseline.prompts for baseline in found.measured} == {2}
    again = measure(*arguments, makers={"image": Raw("image")})
    assert again.measured == found.measured, "the same data give the same scores"


def test_an_unseen_prompt_is_answered_by_texts_and_images_together(tmp_path: Path) -> None:
    write_colours(tmp_path)
    rows = [
        {"image": f"{n}.png", "language": f"question {n}", "word": WORDS["en"][list(COLOURS)[n % 3]]}
        for n in range(21)
    ]
    write_rows(tmp_path / "train.jsonl", rows[:14])
    write_rows(tmp_path / "held-out.jsonl", rows[14:])
    found = measure(
        tmp_path, "{image:image} {language}", "{word}", [ExactMatch()], makers={"image": Raw("image")}
    )
    assert values(found, "exact_match")["linear"] == 1.0
    assert {baseline.prompts for baseline in found.measured} == {1}
    assert found.measured[-1].features == ("pixels", "characters")


def test_the_constant_is_the_best_by_each_metric(tmp_path: Path) -> None:
    """`bbbbbbb` is the most frequent, but `aaab` takes fewer edits in all."""
    targets = ["bbbbbbb"] * 3 + ["aaa", "aaab", "aaac", "aaad", "aaae", "aaaf", "aaag"]
    rows = [{"text": f"{n}", "word": word} for n, word in enumerate(targets)]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "held-out.jsonl", [{"text": "?", "word": w} for w in ("bbbbbbb", "aaa", "aaab")])
    found = measure(tmp_path, "{text}", "{word}", [ExactMatch(), CharacterErrorRate()])
    assert values(found, "exact_match")["constant"] == pytest.approx(1 / 3)
    assert values(found, "character_error_rate")["constant"] == pytest.approx((6 + 1 + 0) / 14)
    assert "linear" not in values(found, "exact_match"), "targets that do not repeat are no classes"


def test_the_nearest_text_answers_numbers(tmp_path: Path) -> None:
    rows = [{"text": "가나다라마바사"[n] * 5, "score": f"{n / 2:.1f}"} for n in range(7)]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "held-out.jsonl", rows[::-1])
    found = values(measure(tmp_path, "{text}", "{score}", [Pearson()]), "pearson")
    assert found == {"constant": 0.0, "nearest": pytest.approx(1.0)}


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    """Training leaves them out; a held-out one gets the constant answer, and those that count as wrong do so here."""
    write_colours(tmp_path)
    (tmp_path / "3.png").write_bytes(b"no image")  # two training rows, red
    (tmp_path / "20.png").unlink()  # two held-out rows, blue
    found = measure(
        tmp_path,
        "{image:image} {language}:",
        "{word}",
        [ExactMatch()],
        makers={"image": Raw("image")},
        missed=[Answer("�", ("blue",))] * 7,
    )
    assert (found.training_rows, found.of_rows) == (26, 28)
    assert values(found, "exact_match")["linear"] == pytest.approx(12 / 21)


def test_some_training_rows(tmp_path: Path) -> None:
    write_colours(tmp_path)
    arguments = (tmp_path, "{image:image}", "{language}", [ExactMatch()])
    makers: dict[str, FeatureMaker] = {"image": Raw("image")}
    assert measure(*arguments, makers=makers, training_rows=[0, 1, 4, 5, 7]).training_rows == 5
    with pytest.raises(UserError, match="no training row"):
        measure(*arguments, makers=makers, training_rows=[])


def test_media_that_take_too_long(tmp_path: Path) -> None:
    write_colours(tmp_path)
    arguments = (tmp_path, "{image:image}", "{word}", [ExactMatch()], None, {"image": Raw("image")})
    seen: list[int] = []
    measure(*arguments, progress=seen.append)
    assert seen == [AT_ONCE, 21], "each image is read once, though two rows have it"
    with pytest.raises(TooSlow, match="21 images"):
        measure(*arguments, longest=0.0)


def test_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_colours(tmp_path)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"pip install 'kebyt5-xm\[baselines\]'"):
        measure(tmp_path, "{image:image}", "{word}", [ExactMatch()], makers={"image": Raw("image")})


def test_a_grid_keeps_where_things_are() -> None:
    features = torch.zeros(8 * 12, 5)
    features[7 * 12 + 11] = 24.0  # the last of the 2 x 3 features of the last part
    pooled = pool_grid(features, (8, 12)).reshape(5, GRID, GRID)
    assert pooled[:, -1, -1].tolist() == [4.0] * 5
    assert pooled.sum() == 20.0


@pytest.mark.parametrize("count", [1, 3, 17])
def test_a_sequence_of_any_length_has_one_size(count: int) -> None:
    features = torch.arange(count * 5.0).reshape(count, 5)
    pooled = pool_sequence(features).reshape(SEGMENTS, 2, 5)
    assert torch.equal(pooled[0, 0], features[: -(-count // SEGMENTS)].mean(0))
    assert torch.equal(pooled[-1, 0], features[(SEGMENTS - 1) * count // SEGMENTS :].mean(0))
    assert bool((pooled[:, 1] >= 0).all())


def test_loudness_does_not_matter_and_short_recordings_do_not_fail() -> None:
    waveform = np.random.default_rng(7).standard_normal(5003).astype(np.float32)
    assert torch.allclose(log_mel(waveform, 16_000), log_mel(3 * waveform, 16_000), atol=1e-3)
    assert log_mel(waveform[:7], 8000).shape == (1, NUM_MELS)
    assert log_mel(waveform, 8000).shape == (61, NUM_MELS)  # 10,006 samples at 16 kHz


def test_padding_of_a_batch_changes_no_vector() -> None:
    torch.manual_seed(3)
    maker = FrozenFeatures(LogMelEncoder(12, num_mels=17))
    prepared = [torch.randn(frames, 17) for frames in (41, 13)]
    together = maker.vectors(prepared)
    alone = np.concatenate([maker.vectors([item]) for item in prepared])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert maker.encoder.training, "it is left as it was"


def test_which_features_a_probe_may_see() -> None:
    """Those of a frozen encoder, else those before training if they were read from a file, else none."""

    def specs(**init_args: Any) -> dict[str, Any]:
        encoder = {
            "class_path": "tiny_media.PatchesWithStatistics",
            "init_args": {"image_size": 16, "out_dim": 8, **init_args},
        }
        return {"image": {**SPECS["image"], "encoder": encoder}, "speech": SPECS["speech"]}

    def make() -> Encoder:
        return PatchesWithStatistics(out_dim=8)

    def maker(model: Any, initial: dict[str, Any]) -> FeatureMaker:
        return feature_makers(model, ["image"], initial)["image"]

    frozen = tiny_model(specs(frozen=True), trusted_modules=["tiny_media"])
    found = maker(frozen, {})
    assert isinstance(found, FrozenFeatures)
    assert found.encoder is frozen.modality("image").encoder
    trained = tiny_model(specs(), trusted_modules=["tiny_media"])
    with torch.no_grad():
        trained.modality("image").encoder.mix_channels.weight.add_(1.0)  # pyright: ignore[reportCallIssue]
    found = maker(trained, {"image": make})
    assert isinstance(found, FrozenFeatures)
    assert found.encoder.frozen
    assert found.key == FrozenFeatures(make().freeze()).key, "the weights from before training"
    assert isinstance(maker(trained, {}), Raw), "nothing says what they were"
    assert maker(trained, {"image": lambda: PatchEncoder(16, out_dim=8)}).name == "pixels"
    frozen.modality("image").encoder_changed = True  # by LoRA
    assert isinstance(maker(frozen, {}), Raw)
    assert feature_makers(trained, ["speech"], {})["speech"].name == "log-mel"


def test_building_an_encoder_twice_leaves_the_random_state_alone() -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    assert pretrained(lambda: PatchEncoder(16, out_dim=8)) is None
    assert pretrained(lambda: StoredFeatures(13)) is not None
    assert torch.equal(torch.random.get_rng_state(), before)
