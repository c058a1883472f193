"""Probes: whether a model uses its media, and what perturbations cost it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny_media import SAMPLE_RATE, write_manifest

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data.batch import collate
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.perturbations.media import BandLimit, Blur, Noise
from kebyt5_xm.data.perturbations.text import ByteNoise, Jamo, MissingSpaces
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.data.sources.template import MediaSegment, Template
from kebyt5_xm.evaluation import held_out as held_out_file
from kebyt5_xm.evaluation.held_out import HeldOut
from kebyt5_xm.evaluation.modality_use import _partners, measure_modality_use
from kebyt5_xm.evaluation.robustness import PERTURBATIONS, measure_robustness
from kebyt5_xm.metrics import Accuracy, ExactMatch
from kebyt5_xm.model.modality import interface
from kebyt5_xm.vocabulary import PAD_ID, decode_bytes

NUM_ROWS = 37
AT_ONCE = 7


@dataclass(frozen=True)
class FakeResponse:
    text: str
    probabilities: dict[str, float] = field(default_factory=dict)


class Errors(ExactMatch):
    """Share of the answers that are wrong."""

    higher_is_better = False
    name = "errors"  # pyright: ignore[reportAssignmentType]

    def value(self, sums):
        return 1 - super().value(sums)


class Model:
    """Answers each example by `answer`, and records the examples. It collates them, as a model does."""

    def __init__(self, interfaces: dict[str, MediaInterface], answer: Callable[[Example], str]):
        self.interfaces, self.answer = interfaces, answer
        self.examples: list[Example] = []

    def __call__(self, examples: Sequence[Example]) -> list[FakeResponse]:
        assert 0 < len(examples) <= AT_ONCE
        part = np.zeros(len(examples), dtype=np.int64)
        batch = collate(list(examples), part, interfaces=self.interfaces)
        assert batch.labels.shape == (len(examples), 1)  # the target is not in the batch
        self.examples += examples
        return [FakeResponse(self.answer(example)) for example in examples]


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    monkeypatch.setattr(held_out_file, "AT_ONCE", AT_ONCE)


@pytest.fixture(scope="module")
def interfaces() -> dict[str, MediaInterface]:
    picture = PatchEncoder(image_size=(16, 24), patch_size=8, out_dim=12)
    speech = LogMelEncoder(out_dim=13, sample_rate=SAMPLE_RATE, num_mels=11)
    return {"image": interface(picture, Linear, 29), "speech": interface(speech, Linear, 29)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Rows with a dark or bright picture and a recording of its own length; the picture of row 2 is missing."""
    folder = tmp_path_factory.mktemp("probes")
    numbers = np.random.default_rng(3)
    rows = []
    for n in range(NUM_ROWS):
        bright = bool(numbers.integers(2))
        pixels = numbers.integers(0, 100, (19, 23, 3), dtype=np.uint8) + np.uint8(150 * bright)
        if n != 2:
            Image.fromarray(pixels).save(folder / f"{n}.png")
        soundfile.write(folder / f"{n}.wav", numbers.standard_normal(599 + 200 * (n % 7)) * 0.1, SAMPLE_RATE)
        rows.append(
            {
                "picture": f"{n}.png",
                "recording": f"{n}.wav",
                "question": f"is picture {n} not dark",
                "answer": "bright" if bright else "dark",
            }
        )
    write_manifest(folder / "rows.jsonl", rows)
    pairs = [
        {**row, "picture": [f"{(n + k) % NUM_ROWS}.png" for k in range(1 + n % 3)]}
        for n, row in enumerate(rows)
    ]
    write_manifest(folder / "pairs.jsonl", pairs)
    return folder


PROMPT = "Look: {picture:image} Q. {question} ?\n{recording:speech}"


def source(folder: Path, interfaces, prompt: str = PROMPT, name: str = "rows.jsonl", **settings) -> Manifest:
    settings = {"labels": ["dark", "bright"], "metrics": [Accuracy(), Errors()], **settings}
    path = str(folder / name)
    made = Manifest(path=path, prompt=prompt, target="{answer}", validation=path, **settings)
    made.connect(interfaces)
    return made


def answered(made: Manifest, model: Any, num_examples: int) -> HeldOut:
    assert made.held_out is not None
    (part,) = made.validation_parts()
    return HeldOut.answered(made.held_out, made.metrics, model, num_examples, part.num_rows)


def media(example: Example, modality: str) -> list[np.ndarray]:
    return [m.prepared.numpy() for m in example.media if m.modality == modality]


def by_picture(example: Example) -> str:
    """Answer by the mean pixel: right if the picture is the right one."""
    seen = media(example, "image")
    return "bright" if seen and seen[0].mean() > 0 else "dark"


def text_of(example: Example) -> bytes:
    return decode_bytes(example.input_ids[example.input_ids != PAD_ID])


def three(score) -> tuple[float, float, float]:
    return score.value, score.low, score.high


# -- which examples --------------------------------------------------------------------------------


def test_the_first_examples_that_can_be_made_are_answered_as_they_are(folder, interfaces):
    model = Model(interfaces, by_picture)
    held_out = answered(source(folder, interfaces), model, 31)
    assert held_out.rows == (0, 1, *range(3, 32))  # the picture of row 2 is missing
    assert len(held_out.clean) == len(held_out.references) == len(model.examples) == 31
    assert [answer.text for answer in held_out.clean] == [right for (right,) in held_out.references]
    assert held_out.clean[2].references == held_out.references[2]
    few = answered(source(folder, interfaces, max_validation_examples=5), model, 31)
    assert few.rows == (0, 1, 3, 4)


class NoCache:
    """A feature cache that must not be read."""

    def get(self, key):
        raise AssertionError("the cache was read")


def test_caches_are_not_read(folder, interfaces):
    cached = {name: replace(known, cache=NoCache()) for name, known in interfaces.items()}
    made = source(folder, cached)
    held_out = answered(made, Model(interfaces, by_picture), 5)
    measure_modality_use(held_out)
    measure_robustness(held_out, [Blur(), ByteNoise()])
    with pytest.raises(AssertionError, match="cache was read"):
        made.training.example(0)


# -- use of modalities -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5, 64, 997])
def test_every_example_gets_the_media_of_another_one(count):
    partners = _partners(count)
    assert sorted(partners) == list(range(count))
    assert all(partner != n for n, partner in enumerate(partners))


def test_a_model_that_looks_at_the_picture_uses_it_and_not_the_recording(folder, interfaces):
    model = Model(interfaces, by_picture)
    held_out = answered(source(folder, interfaces), model, 31)
    messages: list[str] = []
    found = measure_modality_use(held_out, messages.append)
    assert len(messages) == 4
    assert len(model.examples) == 5 * 31
    assert found.as_dict()["used"] == {"image": True, "speech": False}

    image = found.modalities["image"]["accuracy"]
    dark = np.mean([right == ("dark",) for right in held_out.references])
    assert three(image.real) == (1, 1, 1)
    assert 0.3 < image.shuffled.value < 0.7
    assert image.none.value == pytest.approx(dark)
    assert image.real_minus_shuffled.value == pytest.approx(1 - image.shuffled.value)
    assert image.real_minus_none.value == pytest.approx(1 - dark)
    assert (
        0.1 < image.real_minus_shuffled.low < image.real_minus_shuffled.value < image.real_minus_shuffled.high
    )
    errors = found.modalities["image"]["errors"]
    assert errors.is_used  # by a metric of which less is better
    difference = image.real_minus_shuffled
    expected = -difference.value, -difference.high, -difference.low
    assert three(errors.real_minus_shuffled) == pytest.approx(expected)
    speech = found.modalities["speech"]["accuracy"]
    assert three(speech.real_minus_shuffled) == three(speech.real_minus_none) == (0, 0, 0)


def test_a_model_that_is_worse_with_the_real_picture_does_not_use_it(folder, interfaces):
    wrong = {"bright": "dark", "dark": "bright"}
    held_out = answered(
        source(folder, interfaces, "{picture:image}"), Model(interfaces, lambda e: wrong[by_picture(e)]), 31
    )
    found = measure_modality_use(held_out).modalities["image"]
    assert found["accuracy"].real_minus_shuffled.high < 0 < found["errors"].real_minus_shuffled.low
    assert found["accuracy"].is_used is found["errors"].is_used is False


def test_media_are_another_rows_and_the_rest_is_the_examples_own(folder, interfaces):
    model = Model(interfaces, by_picture)
    held_out = answered(source(folder, interfaces), model, 7)
    real = list(model.examples)
    measure_modality_use(held_out)
    pictures_shuffled, _, recordings_shuffled, no_recording = (
        model.examples[7 * n : 7 * n + 7] for n in range(1, 5)
    )
    partners = _partners(7)
    for n, partner in enumerate(partners):
        assert text_of(pictures_shuffled[n]) == text_of(recordings_shuffled[n]) == text_of(real[n])
        np.testing.assert_array_equal(media(pictures_shuffled[n], "image"), media(real[partner], "image"))
        np.testing.assert_array_equal(media(pictures_shuffled[n], "speech"), media(real[n], "speech"))
        np.testing.assert_array_equal(media(recordings_shuffled[n], "speech"), media(real[partner], "speech"))
        # As many slots as the medium fills: recordings differ in length.
        assert [m.count for m in recordings_shuffled[n].media] == [
            real[n].media[0].count,
            real[partner].media[1].count,
        ]
        assert len(no_recording[n].input_ids) == len(real[n].input_ids) - real[n].media[1].count
        assert [m.modality for m in no_recording[n].media] == ["image"]
    assert len({m.count for example in real for m in example.media[1:]}) > 1


def test_rows_with_several_pictures_get_as_many_of_another_row(folder, interfaces):
    model = Model(interfaces, by_picture)
    held_out = answered(source(folder, interfaces, "{picture:image}", "pairs.jsonl"), model, 11)
    found = measure_modality_use(held_out)
    assert found.as_dict()["used"] == {"image": True}
    real, shuffled, none = (model.examples[11 * n : 11 * n + 11] for n in range(3))
    assert (
        [len(e.media) for e in shuffled] == [len(e.media) for e in real] == [1 + n % 3 for n in held_out.rows]
    )
    for example, partner in zip(shuffled, _partners(11), strict=True):
        others = media(real[partner], "image")
        for n, seen in enumerate(media(example, "image")):  # repeated if there are fewer
            np.testing.assert_array_equal(seen, others[n % len(others)])
    assert [len(e.input_ids) for e in none] == [1] * 11  # the end alone


def test_what_cannot_be_measured_is_null(folder, interfaces):
    held_out = answered(source(folder, interfaces, "{picture:image}"), Model(interfaces, by_picture), 1)
    found = measure_modality_use(held_out)
    assert found.as_dict()["used"] == {"image": None}
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    nothing = {"value": None, "low": None, "high": None}
    accuracy = plain["modalities"]["image"]["accuracy"]
    assert accuracy["shuffled"] == accuracy["real_minus_shuffled"] == nothing
    assert accuracy["real"] == {"value": 1, "low": 1, "high": 1}
    assert (plain["examples"], accuracy["higher_is_better"], plain["used"]) == (1, True, {"image": None})
    text = answered(source(folder, interfaces, "{question}"), Model(interfaces, by_picture), 5)
    assert measure_modality_use(text).as_dict() == {"examples": 5, "modalities": {}, "used": {}}


# -- robustness ------------------------------------------------------------------------------------


def by_question(example: Example) -> str:
    """Answer rightly only if all spaces of the question are there."""
    text = text_of(example)
    assert text.startswith(b"Look:  Q. ")  # never perturbed
    assert text.endswith(b" ?\n")
    return by_picture(example) if text.count(b" ") == 8 else "no"


def test_curves_fall_with_what_the_model_needs(folder, interfaces):
    model = Model(interfaces, by_question)
    held_out = answered(source(folder, interfaces), model, 19)
    messages: list[str] = []
    found = measure_robustness(held_out, [Jamo(), MissingSpaces(), Noise(), BandLimit()], messages.append)
    assert len(messages) == 3 + 3 + 4 + 4
    assert messages[4] == "robustness: missing_spaces 0.5, perturbation 2 of 4"
    # The questions are English: nothing is decomposed, and no example is answered again.
    assert [curve.perturbation for curve in found.curves] == ["missing_spaces", "noise", "band_limit"]
    assert found.clean["accuracy"].value == 1
    spaces, noise, band = found.curves
    values = [point.metrics["accuracy"].value for point in spaces.points]
    assert 1 > values[0] > values[1] > values[2] == 0
    changed = [point.changed for point in spaces.points]
    assert 0 < changed[0] < changed[1] <= changed[2] == 19
    assert [1 - n / 19 for n in changed] == pytest.approx(values)  # unchanged examples keep their answers
    assert [(p.strength, p.changed, p.metrics["accuracy"].value) for p in noise.points] == [
        (strength, 19, 1) for strength in (20, 10, 5, 0)
    ]
    assert [p.changed for p in band.points] == [0, 19, 19, 19]  # at 8 kHz there is nothing above 4,000 Hz
    assert len(model.examples) == 19 + sum(changed) + 4 * 19 + 3 * 19


def test_pictures_are_perturbed_before_they_are_prepared(folder, interfaces):
    def sharp(example: Example) -> str:
        return by_picture(example) if media(example, "image")[0].std() > 0.1 else "no"

    held_out = answered(source(folder, interfaces, "{question}{picture:image}"), Model(interfaces, sharp), 13)
    (blur,) = measure_robustness(held_out, [Blur(), Noise()]).curves

    class Strong(Blur):
        strengths = (0.0, 60.0)  # radius 5 of 19 pixels

    (strong,) = measure_robustness(held_out, [Strong()]).curves
    assert blur.points[0].metrics["accuracy"].value == 1
    assert [(p.changed, p.metrics["accuracy"].value) for p in strong.points] == [(0, 1), (13, 0)]


def test_only_what_a_source_has_is_perturbed(folder, interfaces):
    def curves(prompt: str) -> set[str]:
        held_out = answered(source(folder, interfaces, prompt), Model(interfaces, by_picture), 3)
        return {curve.kind for curve in measure_robustness(held_out).curves}

    assert curves("words {question}") == {"text"}
    assert curves("words {picture:image}") == {"image"}
    assert curves("{recording:speech}") == {"audio"}


def test_a_perturbed_text_may_be_longer_than_any_row(folder, interfaces, tmp_path):
    rows = [{"question": "각" * n, "answer": "dark"} for n in (5, 7, 11)]
    write_manifest(tmp_path / "rows.jsonl", rows)
    made = source(tmp_path, interfaces, "{question}", max_source_length=23)
    model = Model(interfaces, lambda example: "dark")
    held_out = answered(made, model, 3)
    assert held_out.rows == (0, 1)  # the third has 33 bytes
    measure_robustness(held_out, [Jamo()])
    assert max(len(example.input_ids) for example in model.examples) == 7 * 9 + 1


def test_results_are_plain_values(folder, interfaces):
    held_out = answered(source(folder, interfaces), Model(interfaces, by_picture), 3)
    plain = json.loads(json.dumps(measure_robustness(held_out).as_dict(), allow_nan=False))
    assert (plain["examples"], set(plain["clean"])) == (3, {"accuracy", "errors"})
    names = [curve["perturbation"] for curve in plain["curves"]]
    assert names == [p.name for p in PERTURBATIONS if p.name != "jamo"]
    for curve in plain["curves"]:
        assert set(curve) == {"perturbation", "kind", "unit", "points"}
        for point in curve["points"]:
            assert set(point) == {"strength", "changed", "metrics"}
            assert set(point["metrics"]["accuracy"]) == {"value", "low", "high"}


def test_the_same_damage_in_every_evaluation(folder, interfaces):
    calls = []
    for _ in range(2):
        model = Model(interfaces, by_picture)
        measure_robustness(answered(source(folder, interfaces), model, 2))
        calls.append(model.examples)
    for one, other in zip(*calls, strict=True):
        np.testing.assert_array_equal(one.input_ids, other.input_ids)
        for a, b in zip(one.media, other.media, strict=True):
            assert (a.modality, a.start, a.count) == (b.modality, b.start, b.count)
            assert a.prepared.equal(b.prepared)


# -- changes on the way to an example --------------------------------------------------------------


def test_columns_are_changed_and_the_prompts_own_words_are_not():
    template = Template("a {{x}} {word}{word} {picture:image} a{other}")
    row = {"word": "a가", "other": 13, "picture": "a.png"}
    calls = []

    def change(column: str, text: str) -> str:
        calls.append((column, text))
        return text.replace("a", "b")

    assert template.text_columns == ("word", "other")
    assert template.render(row, change) == ["a {x} b가b가 ", MediaSegment("image", "a.png"), " a13"]
    assert calls == [("word", "a가"), ("word", "a가"), ("other", "13")]
    assert template.render(row, lambda column, text: b"\xff" if column == "word" else "") == [
        b"a {x} \xff\xff ",
        MediaSegment("image", "a.png"),
        " a",
    ]
    assert Template("{word}{picture:image}").render(row, lambda column, text: b"") == [
        MediaSegment("image", "a.png")
    ]


def test_bytes_that_are_no_text_become_ids(folder, interfaces):
    made = source(folder, interfaces, "{question} :")
    prompts = made.held_out
    assert prompts is not None
    segments = prompts.segments(0, lambda column, text: b"\xe3\x81" + text.encode())
    assert segments == [b"\xe3\x81is picture 0 not dark :"]
    assert decode_bytes(prompts.input(0, segments).input_ids) == segments[0]
    short = replace(prompts, max_source_length=24)
    with pytest.raises(ValueError, match="input of 25 bytes, limit 24"):
        short.input(0, segments)


def test_media_are_changed_by_their_place(folder, interfaces):
    made = source(folder, interfaces, "{picture:image}{recording:speech}{picture:image}")
    prompts = made.held_out
    assert prompts is not None
    calls = []

    def change(place: int, modality: str, item):
        calls.append((place, modality))
        if place == 1:
            return item[0][:401], item[1]
        return Image.new("RGB", item.size, "white") if place == 2 else item

    segments = prompts.segments(0)
    clean, changed = prompts.input(0, segments), prompts.input(0, segments, change)
    assert calls == [(0, "image"), (1, "speech"), (2, "image")]
    assert changed.media[0].prepared.equal(clean.media[0].prepared)
    assert changed.media[1].count < clean.media[1].count
    assert changed.media[2].prepared.min() == changed.media[2].prepared.max() == 1
