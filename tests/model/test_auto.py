"""transformers' Auto classes and its pipeline with a cross-modal model, as a stranger uses them."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import ROWS, logits, picture, recording, tiny_model, write_files
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    pipeline,
)

import kebyt5_xm.auto
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.configuration import CONFIG_KEYS
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.vocabulary import decode, encode

COMMIT = "0123abcd" * 5
AUTO_MODELS = (AutoModel, AutoModelForSeq2SeqLM, AutoModelForMultimodalLM)


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model: CrossModalT5, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(path)
    model.processor.save_pretrained(path)
    return path


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache with the repository someone/xm: the model in `deep` on the branch v2, no network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "cache" / "models--someone--xm"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "v2").write_text(COMMIT)
    shutil.copytree(folder, repo / "snapshots" / COMMIT / "deep")
    return tmp_path / "cache"


def same_tensors(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(t.equal(theirs[k]) for k, t in ours.items())


@pytest.mark.parametrize("auto_class", AUTO_MODELS)
def test_every_auto_class_loads_the_model_bit_by_bit(auto_class: Any, model: CrossModalT5, folder: Path):
    loaded = auto_class.from_pretrained(folder)
    assert type(loaded) is CrossModalT5
    assert same_tensors(loaded, model)
    assert not loaded.training
    half = auto_class.from_pretrained(folder, dtype=torch.bfloat16, device_map="auto")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert auto_class.from_pretrained(folder, dtype="auto").dtype == torch.float32


def test_bfloat16_is_saved_and_loaded_bit_by_bit(model: CrossModalT5, tmp_path: Path):
    half = tiny_model().to(torch.bfloat16)
    half.save_pretrained(tmp_path, max_shard_size="7KB")
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert same_tensors(loaded, half)
    assert logits(loaded, ROWS[3]).equal(logits(half, ROWS[3]))


def test_config_and_processor(model: CrossModalT5, folder: Path, tmp_path: Path):
    config = AutoConfig.from_pretrained(folder)
    assert isinstance(config, kebyt5_xm.auto.CrossModalT5Config)
    built = AutoModel.from_config(config)
    assert built.state_dict().keys() == model.state_dict().keys()
    config.slot_bias = "zero"
    assert AutoModel.from_pretrained(folder, config=config).config.slot_bias == "zero"
    bare = tmp_path / "bare"
    model.save_pretrained(bare)  # without processor_config.json
    for place in (folder, bare):
        processor = AutoProcessor.from_pretrained(place)
        assert type(processor) is CrossModalProcessor
        assert repr(processor) == "CrossModalProcessor('image' (image), 'speech' (audio))"
        inputs, expected = processor(ROWS[3]), model.processor(ROWS[3])
        assert inputs["input_ids"].equal(expected["input_ids"])
    config.byte_rms = -1.0
    with pytest.raises(UserError, match=r"byte_rms: '-1\.0'"):
        AutoModel.from_pretrained(folder, config=config)


def test_absurd_values_of_a_config_give_one_line(folder: Path, tmp_path: Path):
    """transformers builds the configuration before the model is loaded."""
    shutil.copytree(folder, tmp_path / "bad")
    path = tmp_path / "bad" / "config.json"
    content = json.loads(path.read_text())
    encoder = {
        "encoder": {"class_path": "evilmod.Encoder"},
        "adapter": content["modalities"]["image"]["adapter"],
    }
    for changed, message in (
        ({"backbone": [1]}, "config.json says backbone: "),
        ({"backbone": {**content["backbone"], "d_model": 10**9}}, "config.json says d_model: 1000000000"),
        ({"modalities": {"a.b": {}}}, "found the modality 'a.b'"),
        ({"byte_rms": "x"}, "config.json says byte_rms: 'x'"),
        ({"dtype": "evil"}, "config.json says dtype: 'evil'"),
        ({"modalities": {"image": encoder}}, "'evilmod' is not trusted, so it was not imported"),
    ):
        path.write_text(json.dumps({**content, **changed}))
        with pytest.raises(UserError, match=message):
            AutoModel.from_pretrained(tmp_path / "bad")
    path.write_text(json.dumps({**content, "kebyt5_xm": [1]}))
    assert AutoModel.from_pretrained(tmp_path / "bad").config.kebyt5_xm == {}
    with pytest.raises(UserError, match="found attn_implementation='eager', expected sdpa"):
        AutoModel.from_pretrained(folder, attn_implementation="eager")


def test_a_configuration_that_was_saved_alone_is_read(folder: Path, tmp_path: Path):
    config = AutoConfig.from_pretrained(folder)
    config.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert all(getattr(read, key) == getattr(config, key) for key in CONFIG_KEYS)


def test_given_tensors_are_used_and_checked(model: CrossModalT5, folder: Path):
    changed = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    config = AutoConfig.from_pretrained(folder)
    for loaded in (
        AutoModel.from_pretrained(folder, state_dict=changed),
        CrossModalT5.from_pretrained(None, config=config, state_dict=changed),
    ):
        assert all(tensor.equal(changed[name]) for name, tensor in loaded.state_dict().items())
    del changed["backbone.shared.weight"]
    with pytest.raises(UserError, match=r"'state_dict' do not fit .*shared.weight is missing"):
        AutoModel.from_pretrained(folder, state_dict=changed)
    with pytest.raises(UserError, match="or both config and state_dict"):
        CrossModalT5.from_pretrained(None, config=config)


def test_generation_defaults_are_saved(tmp_path: Path):
    model = tiny_model()
    assert model.generation_config is not None
    model.generation_config.num_beams = 3
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert (loaded.generation_config.num_beams, loaded.generation_config.max_new_tokens) == (3, 7)
    assert loaded.answer("가") == model.answer("가")
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"num_beams": "many", "max_new_tokens": -1, "cache_implementation": 3}))
    with pytest.raises(UserError, match=r"generation_config.json of .* cannot be used"):
        CrossModalT5.from_pretrained(tmp_path)
    path.write_text("[]")
    with pytest.raises(UserError, match="holds a list, expected a mapping"):
        CrossModalT5.from_pretrained(tmp_path)


def test_the_origin_of_the_weights_is_kept(tmp_path: Path):
    about = {"licence": "cc-by-nc-4.0", "started_from": ["someone/tiny"], "backbone_hash": "0" * 64}
    model = tiny_model(kebyt5_xm=about)
    model.save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "config.json").read_text())["kebyt5_xm"]
    assert kept == {"licence": "cc-by-nc-4.0", "started_from": ["someone/tiny"]}  # the hash may be of others
    assert AutoModel.from_pretrained(tmp_path).config.kebyt5_xm == kept


def test_revision_subfolder_and_cache_of_the_hub(model: CrossModalT5, cache: Path):
    arguments: dict[str, Any] = {"revision": "v2", "subfolder": "deep", "cache_dir": cache}
    assert same_tensors(AutoModel.from_pretrained("someone/xm", **arguments), model)
    assert AutoConfig.from_pretrained("someone/xm", **arguments).byte_rms == model.byte_rms()
    assert len(AutoProcessor.from_pretrained("someone/xm", **arguments).interfaces) == 2
    for changed in ({"revision": "v3"}, {"subfolder": "shallow"}, {"cache_dir": cache / "other"}):
        with pytest.raises(UserError, match=r"config\.json of the hub model .*no network"):
            CrossModalT5.from_pretrained("someone/xm", **arguments | changed)


def generated(model: CrossModalT5, rows: list[list[Any]]) -> list[str]:
    ids = model.generate(**model.processor(rows), max_new_tokens=9)  # pyright: ignore
    assert isinstance(ids, torch.Tensor)
    return [decode(row) for row in ids.numpy()]


def test_the_pipeline_answers_as_generate_does(model: CrossModalT5, folder: Path, tmp_path: Path):
    pipe = pipeline("any-to-any", model=str(folder), max_new_tokens=9)
    image, wav = write_files(tmp_path)

    def written(*args: Any, **options: Any) -> list[str]:
        return [record["generated_text"] for record in pipe(*args, return_full_text=False, **options)]

    (expected,) = generated(model, [[picture(5), " ko:"]])
    samples, rate = recording(7)
    data_url = "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()
    for given in (str(image), picture(5), [picture(5)], data_url):
        assert written(text=" ko:", images=given) == [expected]
    assert pipe(text=" ko:", images=picture(5))[0]["generated_text"] == " ko:" + expected
    for given in (str(wav), {"array": samples, "sampling_rate": rate}):
        assert written(text=" en:", audio=given) == generated(model, [[wav, " en:"]])
    assert written(text=" en:", audio=samples, sampling_rate=rate) == generated(model, [[wav, " en:"]])
    rows = [[picture(1), wav, " ko:"], [picture(3), wav, " en:"]]
    together = written(text=[" ko:", " en:"], images=[picture(1), picture(3)], audio=[str(wav), str(wav)])
    assert together == generated(model, rows)

    content = [
        {"type": "audio", "path": str(wav)},
        {"type": "text", "text": " en:"},
        {"type": "image_url", "image_url": {"url": data_url}},
    ]
    chat = [{"role": "user", "content": content}]
    assert written(text=chat) == generated(model, [[wav, " en:", picture(5)]])  # in the order of the chat


def test_the_pipeline_keeps_an_answer_that_repeats_its_input(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Corrections of noisy text begin so; the pipeline takes the input off answers of models that repeat it."""
    pipe = pipeline("any-to-any", model=str(folder))
    answer = torch.tensor([[0, *encode("안녕하세요?").tolist(), 1]])
    monkeypatch.setattr(CrossModalT5, "generate", lambda *_, **__: answer)
    for options, expected in (({"return_full_text": False}, "안녕하세요?"), ({}, "안녕하세요안녕하세요?")):
        assert pipe("안녕하세요", **options)[0]["generated_text"] == expected


def test_the_pipeline_refuses_what_it_cannot_give(folder: Path):
    pipe = pipeline("any-to-any", model=str(folder))
    turn = {"role": "assistant", "content": "하나"}
    for call, message in (
        ({"text": "x", "images": "https://a/b.png"}, "download it and give its path"),
        ({"text": "x", "videos": "a.mp4"}, "no modality takes videos"),
        ({"text": "x", "truncation": True}, "nothing is cut here"),
        ({"text": "x", "do_sample": True}, "options of generate go into generate_kwargs"),
        ({"text": ["x", "y"], "images": [picture(1)]}, "found 2 texts and 1 for image"),
        ({"text": [{"role": "user", "content": "x"}, turn]}, "found a chat of 2 messages"),
        ({"text": [{"role": "user", "content": [{"type": "video"}]}]}, "type text, image or audio"),
        ({"text": [{"role": "user", "content": [{"type": "image"}]}]}, "found nothing for 'image'"),
        ({"text": "x", "stop_sequence": "y"}, "needs a vocabulary of strings"),
    ):
        with pytest.raises(UserError, match=message):
            pipe(**call)
    with pytest.raises(ValueError, match="cannot do batching"):
        pipe([{"text": "x"}, {"text": "y"}], batch_size=2)
