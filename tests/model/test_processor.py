"""CrossModalProcessor: the same ids, media and slots as in training, and helpful errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import IMAGE_SLOTS, ROWS, SAMPLE_RATE, SPECS, picture, recording, tiny_model, write_files

from kebyt5_xm.data import Manifest
from kebyt5_xm.data.media.opening import Limits, MediaError
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.kinds import media_kind
from kebyt5_xm.model.processor import CrossModalProcessor, Medium
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


def test_an_example_equals_that_of_training(model, tmp_path):
    write_files(tmp_path)
    row = {"picture": ["a.png", "a.png"], "sound": "b.wav", "language": "日本"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    prompt = "{sound:speech}은 {picture:image}{language}:"
    source = Manifest(str(tmp_path / "rows.jsonl"), prompt=prompt, target="x")
    source.connect(model.processor.interfaces)
    trained = source.training.example(0)

    image, audio = tmp_path / "a.png", tmp_path / "b.wav"
    for segments in (
        [audio, "은 ", image, image, "日本:"],
        [("speech", str(audio)), "은 ", picture(5), Medium("image", image.read_bytes()), "日", "本:"],
        [(torch.from_numpy(recording(7)[0]), SAMPLE_RATE), "은 ", image, ("image", picture(5)), "日本:"],
    ):
        example = model.processor.example(segments)
        assert example.input_ids.tolist() == trained.input_ids.tolist()
        assert len(example.media) == len(trained.media) == 3
        for ours, theirs in zip(example.media, trained.media, strict=True):
            assert (ours.modality, ours.start, ours.count) == (theirs.modality, theirs.start, theirs.count)
            assert ours.prepared.equal(theirs.prepared)


def test_inputs_of_a_batch(model):
    inputs = model.processor(ROWS)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert ids.dtype == mask.dtype == torch.int64
    assert ids[4].tolist() == [*encode("x"), EOS_ID, *[PAD_ID] * (ids.shape[1] - 2)]
    assert mask[4].tolist() == [1, 1, *[0] * (ids.shape[1] - 2)]
    assert ids[1, : mask[1].sum()].tolist() == [PAD_ID] * IMAGE_SLOTS + [*encode(" ko:"), EOS_ID]
    assert mask[1].sum() == IMAGE_SLOTS + 5
    assert {(g.modality, *g.row.tolist()) for g in inputs["media"]} == {("image", 1, 3, 3), ("speech", 2, 3)}
    assert model.processor("x")["input_ids"].tolist() == ids[4:, :2].tolist()
    assert model.processor(["x"])["input_ids"].shape == (1, 2)

    moved = inputs.to("meta")
    tensors = [moved["input_ids"], moved["attention_mask"]]
    tensors += [t for g in moved["media"] for t in (g.prepared, g.lengths, g.row, g.start, g.count)]
    assert {t.device.type for t in tensors} == {"meta"}
    assert ids.device.type == "cpu"


def test_a_saved_processor_is_loaded_without_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # no weight is needed
    processor = CrossModalProcessor.from_pretrained(tmp_path)
    ours, theirs = processor(ROWS), model.processor(ROWS)
    assert ours["input_ids"].equal(theirs["input_ids"])
    for mine, other in zip(ours["media"], theirs["media"], strict=True):
        assert mine.prepared.equal(other.prepared)
    path = tmp_path / "processor_config.json"
    path.write_text(
        path.read_text().replace(model.processor.interfaces["image"].preprocessor.fingerprint(), "0")
    )
    with pytest.warns(UserWarning, match="'image' has changed since"):
        CrossModalProcessor.from_pretrained(tmp_path)


def test_unusable_segments_are_refused_with_a_remedy(model, tmp_path):
    two = tiny_model({**SPECS, "page": SPECS["image"]}).processor
    one = tiny_model({"image": SPECS["image"]}).processor
    text = tiny_model({}).processor
    (tmp_path / "broken.png").write_bytes(b"no image")
    refused = [
        (two, [picture(1)], r"image and page both take.*\('image', item\)"),
        (one, [recording(1)], "no modality takes audio; the model has 'image' \\(image\\)"),
        (text, [picture(1)], "the model has none, only text"),
        (one, [("imge", picture(1))], "no modality 'imge'; did you mean 'image'"),
        (one, [("image", recording(1))], "'image' takes image, found a tuple"),
        (one, [Path(tmp_path / "broken.png")], "broken.png.*no readable image"),
        (one, [Path(tmp_path / "gone.png")], "gone.png: there is no such file"),
        (two, [Path(tmp_path / "a.xyz")], "a.xyz' among the segments, whose kind is unknown"),
        (one, [17], "a int among the segments"),
        (one, [np.zeros(3)], "no modality takes array"),
        (one, [], "found an empty list, expected a text or a list of segments"),
        (one, [["a"], []], "found an empty list"),
        (one, picture(1), "found a Image, expected a text or a list of segments"),
        (one, [["a"], "b"], "found a list among the segments.*a batch is a list of lists"),
        (one, ["a.png"], r"the text 'a.png', the name of a file, expected Path\('a.png'\)"),
        (
            model.processor,
            [(SAMPLE_RATE, np.zeros(7))],
            r"found a tuple.*\(waveform, sample rate\) in this order",
        ),
        (model.processor, [(np.zeros(7), float("nan"))], "a sample rate of 'nan', expected a whole number"),
        (one, [np.zeros((3, 19, 23), np.float32)], r"a ndarray \(float32 \[3, 19, 23\]\), but no modality"),
        (one, [("image", np.zeros((3, 19, 23)))], r"float64 \[3, 19, 23\].*expected uint8 \[height, width\]"),
        (one, [("image", np.zeros((2, 19, 23), np.uint8))], r"uint8 \[2, 19, 23\]"),
        (one, ["\udc80"], "lone surrogate"),
        (model.processor, [(np.zeros(7, np.uint8), SAMPLE_RATE)], "found uint8.*expected floats"),
        (model.processor, [(np.full(7, np.nan), SAMPLE_RATE)], "NaN"),
    ]
    for processor, segments, message in refused:
        with pytest.raises(UserError, match=message):
            processor(segments)
    assert two([("page", picture(1))])["media"][0].modality == "page"
    picture(1).save(tmp_path / "a.xyz", format="png")
    assert one([Path(tmp_path / "a.xyz")])["media"][0].modality == "image"
    with pytest.raises(MediaError, match="max_pixels"):
        CrossModalProcessor.of(model, Limits(max_pixels=100))([("image", tmp_path / "a.xyz")])


def test_errors_name_the_example_and_the_segment(model, tmp_path):
    gone, batch = tmp_path / "gone.png", [["x"], [picture(1), "?"]]
    for segments, message in [
        (["a ", picture(1), gone], r"gone\.png, segment 3: there is no such file"),
        ([*batch, ["a ", gone]], r"gone\.png, segment 2, example 3: there is no such file"),
        ([*batch, [17]], "^example 3: found a int"),
        ([*batch, ["a", 17]], "^example 3: segment 2: found a int"),
        ([*batch, []], "^example 3: found an empty list"),
        ([*batch, ["", (np.zeros((3, 5, 7)), 8000)]], r"the recording, segment 2, example 3.*\[3, 5, 7\]"),
    ]:
        with pytest.raises(UserError, match=message):
            model.processor(segments)


def test_waveforms_of_every_shape_are_the_same_recording(model):
    samples, rate = recording(7)
    expected = model.processor([(samples, rate), "?"])
    for shaped in (samples[None], samples[:, None], torch.from_numpy(samples)[None].expand(2, -1)):
        for item in ((shaped, rate), {"array": shaped, "sampling_rate": rate}, ("speech", (shaped, rate))):
            found = model.processor([item, "?"])
            assert found["input_ids"].equal(expected["input_ids"])
            assert found["media"][0].prepared.equal(expected["media"][0].prepared)


def test_too_short_for_one_feature_names_the_modality(tmp_path):
    from encoders.stored import StoredFeatures

    spec = {"class_path": f"encoders.stored.{StoredFeatures.__name__}", "init_args": {"dim": 5}}
    model = tiny_model({"table": {"encoder": spec, "adapter": SPECS["image"]["adapter"]}})
    with pytest.raises(UserError, match=r"modality 'table' cannot take a ndarray.*expected"):
        model.processor([np.zeros((3, 7), np.float32)])
    np.save(tmp_path / "c.npy", np.ones((3, 5)))
    (group,) = model.processor([tmp_path / "c.npy", "?"])["media"]
    assert group.count.tolist() == [3]


def test_media_in_memory_are_accepted_in_every_form(model):
    pixels = np.asarray(picture(5))  # [19, 23, 3]
    expected = model.processor([picture(5), " ko:"])
    channels_first = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    for item in (pixels, channels_first, ("image", pixels), ("image", channels_first)):
        found = model.processor([item, " ko:"])
        assert found["input_ids"].equal(expected["input_ids"])
        assert found["media"][0].prepared.equal(expected["media"][0].prepared)
    samples, rate = recording(7)
    expected = model.processor([(samples, rate)])
    tensor = torch.from_numpy(samples).requires_grad_()
    for item in ((tensor, float(rate)), (samples, np.int64(rate)), {"array": samples, "sampling_rate": rate}):
        assert model.processor([item])["media"][0].prepared.equal(expected["media"][0].prepared)
    assert model.processor([(tensor.bfloat16(), rate)])["input_ids"].equal(expected["input_ids"])


def test_the_kind_of_a_file_comes_from_its_content(model, tmp_path, monkeypatch):
    """Neither from its name nor from the machine: some machines have no /etc/mime.types."""
    monkeypatch.setattr("mimetypes.guess_type", lambda *args: pytest.fail("asks the machine"))
    image, audio = write_files(tmp_path)
    expected = model.processor([image, audio])
    for name in ("", ".dat", ".txt", ".WAV"):
        image = image.rename(tmp_path / f"picture{name}")
        found = model.processor([image, audio])
        assert found["input_ids"].equal(expected["input_ids"])
    audio = audio.rename(tmp_path / "sound.png")
    assert model.processor([image, audio])["input_ids"].equal(expected["input_ids"])
    for suffix, kind in ((".webp", "image"), (".OGG", "audio"), (".npy", "array"), (".txt", None)):
        assert media_kind(tmp_path / f"gone{suffix}") == kind


def test_a_file_name_is_text_only_if_it_cannot_mean_the_file(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ko").mkdir()
    (tmp_path / "word").write_text("x")
    text = tiny_model({}).processor
    for processor, segment in ((model.processor, "ko"), (model.processor, "word"), (text, "a.png")):
        assert processor([segment])["input_ids"].shape[1] == len(segment) + 1
    for address in ("www.abc.net.au", "info@firm.com.au"):  # no recordings (.au)
        assert model.processor([address])["input_ids"].shape[1] == len(address) + 1
    assert model.processor(["what is in a.png"])["input_ids"].shape[1] == 17
    write_files(tmp_path)
    with pytest.raises(UserError, match=r"the text 'a\.png'"):
        text(["a.png"])
