"""CrossModalT5: saved and loaded exactly, spliced correctly, the same outputs in a batch as for single rows."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import IMAGE_SLOTS, LABELS, ROWS, SPECS, logits, picture, recording, tiny_model

from encoders.stems import PatchEncoder
from kebyt5_xm import weight_files
from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.adapter_folder import load_adapter, save_adapter
from kebyt5_xm.model.backbone import backbone_hash
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.network import token_losses


class FromFile(PatchEncoder):
    """A third-party encoder that reads a file in its constructor."""

    def __init__(self, path: str | None, frozen: bool = False, crop: tuple[int, int] | None = None) -> None:
        super().__init__(16, 8, 12, frozen=frozen)
        assert crop is None or isinstance(crop, tuple), "JSON has no tuples, but the class asks for one"
        if path is not None:
            Path(path).read_text()

    def offline(self, init_args):
        return {**init_args, "path": None}


@pytest.mark.parametrize("slot_bias", ["shared", "zero"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_exactly(tmp_path, slot_bias, dtype):
    denoising = {"sentinels": "descending"}
    model = tiny_model(slot_bias=slot_bias, denoising=denoising).to(dtype)
    model.save_pretrained(tmp_path)
    names = ["config.json", "digests.json", "generation_config.json", "model.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    loaded = CrossModalT5.from_pretrained(tmp_path)

    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype == dtype
        assert tensor.equal(after[name]), name
    assert "backbone.encoder.embed_tokens.weight" not in load_file(tmp_path / "model.safetensors")
    assert loaded.backbone.shared.weight is loaded.backbone.encoder.embed_tokens.weight
    assert not loaded.training
    assert loaded.byte_rms() == model.byte_rms() != 1.0
    assert loaded.config.denoising == denoising
    assert all(p.requires_grad for p in loaded.parameters())
    assert logits(loaded, ROWS).equal(logits(model, ROWS))
    assert not logits(loaded, ROWS[3]).equal(
        logits(tiny_model(slot_bias=slot_bias, seed=4).to(dtype), ROWS[3])
    )


def test_a_third_party_encoder_is_saved_so_that_it_needs_no_file(tmp_path):
    weights = tmp_path / "pretrained"
    weights.write_text("weights")
    encoder = {"class_path": "test_model.FromFile", "init_args": {"path": str(weights), "frozen": True}}
    encoder["init_args"] |= {"crop": (5, 7)}
    model = tiny_model({"image": {**SPECS["image"], "encoder": encoder}}, trusted_modules=["test_model"])
    model.save_pretrained(tmp_path / "out")
    weights.unlink()
    loaded = CrossModalT5.from_pretrained(tmp_path / "out", trusted_modules=["test_model"])
    assert loaded.modality("image").encoder.frozen
    assert logits(loaded, ROWS[1]).equal(logits(model, ROWS[1]))

    model.config.modalities = {}
    with pytest.raises(UserError, match=r"modality 'image'.*CrossModalT5Config"):
        model.save_pretrained(tmp_path / "again")


def test_untrusted_modules_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evilmod.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Encoder: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tiny_model().save_pretrained(tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    content = json.loads(path.read_text())
    encoder = content["modalities"]["image"]["encoder"]
    for class_path in ("evilmod.Encoder", "encodersevil.Encoder"):
        encoder["class_path"] = class_path
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"trusted_modules=\['(evilmod|encodersevil)'\]"):
            CrossModalT5.from_pretrained(tmp_path / "out")
    assert not (tmp_path / "ran").exists()

    refused = {
        "evilmod.Encoder": "not a class of the kind Encoder",
        "encoders.stems.PatchEncode": "did you mean 'PatchEncoder'",
        "encoders.stems.power_of_two": "not a class of the kind",
        "kebyt5_xm.encoder.Encoder": "not a class of the kind",
    }
    for class_path, message in refused.items():
        encoder["class_path"] = class_path
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            CrossModalT5.from_pretrained(tmp_path / "out", trusted_modules=["evilmod"])
    encoder |= {"class_path": "encoders.stems.PatchEncoder", "init_args": {"patchsize": 8}}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="did you mean 'patch_size'"):
        CrossModalT5.from_pretrained(tmp_path / "out")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    (tmp_path / "digests.json").unlink()  # as of a model that others saved
    tensors = load_file(path)
    gain = tensors.pop("modalities.image.adapter.gain")
    save_file({**tensors, "modalities.image.adapter.gaim": gain}, path)
    with pytest.raises(UserError, match=r"adapter\.gain is missing.*adapter\.gaim is unknown"):
        CrossModalT5.from_pretrained(tmp_path)
    save_file({**tensors, "modalities.image.adapter.gain": gain[:-1].clone()}, path)
    with pytest.raises(UserError, match=r"gain is \(28,\), expected \(29,\)"):
        CrossModalT5.from_pretrained(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="incomplete"):
        CrossModalT5.from_pretrained(tmp_path)


def test_without_modalities_outputs_equal_the_backbones():
    model = tiny_model()
    inputs = model.processor([[row] for row in ("나라 말이", "x", "中国")])
    labels = LABELS.repeat(3, 1)
    text = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    own, theirs = model(**text, labels=labels), model.backbone(**text, labels=labels)
    assert own.logits.allclose(theirs.logits, atol=1e-4)  # other kernels: fp32, logits near 10
    assert own.loss.allclose(theirs.loss, rtol=1e-5)
    options = {"max_new_tokens": 11, "num_beams": 3, "num_return_sequences": 2}
    written = model.generate(**inputs, **options)
    assert written.equal(model.backbone.generate(**text, **options))

    zero = tiny_model(slot_bias="zero")
    assert theirs.logits.allclose(zero(**text, labels=labels).logits, atol=1e-4)


@pytest.mark.parametrize("slot_bias", ["shared", "zero"])
def test_a_batch_gives_the_outputs_of_its_single_rows(slot_bias):
    model = tiny_model(slot_bias=slot_bias)
    together = logits(model, ROWS)
    for row, segments in enumerate(ROWS):
        assert together[row].allclose(logits(model, segments)[0], atol=1e-4), row
    assert (together[0] - together[1]).abs().max() > 0.1
    inputs = model.processor(ROWS)
    written = model.generate(**inputs, max_new_tokens=13)
    for row, segments in enumerate(ROWS):
        alone = model.generate(**model.processor(segments), max_new_tokens=13)[0]
        assert written[row, : len(alone)].equal(alone)
        assert not written[row, len(alone) :].any()
    assert len({tuple(row) for row in written.tolist()}) == len(ROWS)
    answers = model.answer(ROWS, max_new_tokens=13)
    assert answers == [model.answer(segments, max_new_tokens=13) for segments in ROWS]


def test_generate_works_as_in_transformers():
    model = tiny_model()
    inputs = model.processor(ROWS)
    lengths: list[int] = []
    hook = model.backbone.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    greedy = model.generate(**inputs, max_new_tokens=5, eos_token_id=None)
    hook.remove()
    assert lengths == [1] * 5, "the decoder's cache is not used"
    cacheless = model.generate(**inputs, max_new_tokens=5, eos_token_id=None, use_cache=False)
    assert greedy.equal(cacheless)

    states = model.get_encoder()(**inputs)
    calls: list[int] = []
    for name in model.modalities:
        model.modality(name).register_forward_hook(lambda *_: calls.append(1))
    mask = inputs["attention_mask"]
    reused = model.generate(encoder_outputs=states, attention_mask=mask, max_new_tokens=5, eos_token_id=None)
    assert reused.equal(greedy)
    assert not calls
    beams = model.generate(**inputs, max_new_tokens=5, num_beams=3, num_return_sequences=2)
    assert len(beams) == 2 * len(ROWS)
    assert len(calls) == len(SPECS), "each encoder runs once for all steps and beams"
    torch.manual_seed(0)
    drawn = [model.generate(**inputs, max_new_tokens=5, do_sample=True) for _ in range(2)]
    assert not drawn[0].equal(drawn[1])
    with pytest.raises(UserError, match="attention_mask masks slots"):
        model.generate(**{**inputs, "attention_mask": inputs["input_ids"].ne(0)}, max_new_tokens=2)


def reference_states(model: CrossModalT5, embedded: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Compute T5's encoder by hand for one row [S, D], the bias zero where `slots` [S] is involved."""
    stack = model.backbone.encoder
    first = stack.block[0].layer[0].SelfAttention
    bias = first.compute_bias(len(embedded), len(embedded))[0].clone()  # [H, S, S]
    bias[:, slots] = 0
    bias[:, :, slots] = 0
    hidden = embedded
    for block in stack.block:
        attend = block.layer[0].SelfAttention
        normed = block.layer[0].layer_norm(hidden)
        q, k, v = (f(normed).unflatten(1, (3, 7)).transpose(0, 1) for f in (attend.q, attend.k, attend.v))
        read = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v  # [H, S, d]
        hidden = hidden + attend.o(read.transpose(0, 1).flatten(1))
        hidden = block.layer[1](hidden[None])[0]
    return stack.final_layer_norm(hidden)


@torch.no_grad()
def test_slot_bias_zero_ignores_distance_at_slots_and_nowhere_else():
    zero, shared = tiny_model(slot_bias="zero"), tiny_model()
    segments = ["ab", picture(1), "cde"]
    inputs = zero.processor(segments)
    (group,) = inputs["media"]
    vectors, _ = zero.modality("image")(group.prepared, group.lengths)
    embedded = zero.backbone.shared(inputs["input_ids"])[0]
    embedded[2 : 2 + IMAGE_SLOTS] = vectors[0]
    slots = torch.zeros(len(embedded), dtype=torch.bool)
    slots[2 : 2 + IMAGE_SLOTS] = True
    for model, mask in ((zero, slots), (shared, torch.zeros_like(slots))):
        states = model.get_encoder()(**inputs).last_hidden_state[0]
        assert states.allclose(reference_states(model, embedded, mask), atol=1e-5)
    assert not reference_states(zero, embedded, slots).allclose(
        reference_states(zero, embedded, ~slots), atol=0.1
    )


def test_only_trainable_parameters_get_gradients():
    model = tiny_model().train()
    frozen = model.modality("image").encoder.freeze()
    inputs = model.processor(ROWS)
    model(**inputs, labels=LABELS.expand(len(ROWS), -1)).loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("modalities.image.encoder."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
    assert not frozen.training

    frozen.requires_grad_(True)  # as a plain model.requires_grad_() does
    for name, keeps in (("image", False), ("speech", True)):
        group = next(group for group in inputs["media"] if group.modality == name)
        saved: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t) or t, lambda t: t
        ):
            encoded = model.modality(name).encoder(group.prepared, group.lengths)
        assert bool(saved) is keeps, "a frozen encoder keeps tensors for a backward pass that never comes"
        assert (encoded.features.grad_fn is not None) is keeps


def test_label_padding_affects_neither_loss_nor_gradient():
    model = tiny_model()
    inputs = model.processor(ROWS[3])
    padded = torch.nn.functional.pad(LABELS, (0, 5), value=IGNORE_INDEX)
    found = []
    for labels in (LABELS, padded):
        model.zero_grad()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        found.append((loss.detach(), model.backbone.lm_head.weight.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert not token_losses(torch.randn(1, padded.shape[1], 384), padded)[padded == IGNORE_INDEX].any()


def test_a_wrong_slot_count_is_refused_with_row_and_modality():
    model = tiny_model()
    inputs = model.processor(ROWS)
    group = next(group for group in inputs["media"] if group.modality == "speech")
    group.count[1] += 2
    with pytest.raises(UserError, match=r"'speech'.* row 3 .*slots"):
        model(**inputs, labels=LABELS.expand(len(ROWS), -1))
    group.modality = "speeech"
    with pytest.raises(UserError, match="did you mean 'speech'"):
        model(**inputs, labels=LABELS.expand(len(ROWS), -1))


def test_a_saved_adapter_fits_its_backbone_only(tmp_path):
    model = tiny_model()
    model.modality("speech").encoder.freeze()
    for name in SPECS:
        save_adapter(model, name, tmp_path / name)
    names = {name: sorted(p.name for p in (tmp_path / name).iterdir()) for name in SPECS}
    assert names["image"] == [*("adapter.json", "adapter.safetensors", "digests.json", "encoder.safetensors")]
    assert names["speech"] == ["adapter.json", "adapter.safetensors", "digests.json"]

    other = tiny_model(seed=5)
    theirs, ours = backbone_hash(model.backbone), backbone_hash(other.backbone)
    with pytest.raises(UserError, match=rf"{theirs}.*{ours}"):
        load_adapter(other, "image", tmp_path / "image")
    other.backbone.load_state_dict(model.backbone.state_dict())
    load_adapter(other, "image", tmp_path / "image")
    assert logits(other, ROWS[1]).equal(logits(model, ROWS[1]))
    assert not logits(other, ROWS[2]).equal(logits(model, ROWS[2]))
    with pytest.raises(UserError, match=r"LogMelEncoder|PatchEncoder"):
        load_adapter(other, "speech", tmp_path / "image")
    with pytest.raises(UserError, match=r"no adapter\.json"):
        load_adapter(other, "image", tmp_path)
    shutil.copy(tmp_path / "speech" / "adapter.safetensors", tmp_path / "image")
    with pytest.raises(UserError, match=r"adapter\.safetensors' has the digest .* of another model"):
        load_adapter(other, "image", tmp_path / "image")

    half = tiny_model().to(torch.bfloat16)
    save_adapter(half, "image", tmp_path / "half")
    widened = tiny_model(seed=5)  # training turns a bfloat16 export into float32
    widened.backbone.load_state_dict(half.backbone.state_dict())
    load_adapter(widened, "image", tmp_path / "half")
    assert widened.modality("image").adapter.gain.dtype == torch.float32


def test_a_config_builds_the_model_and_transformers_reads_it(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    config = CrossModalT5Config.from_pretrained(tmp_path)
    built = CrossModalT5(config)
    assert built.state_dict().keys() == model.state_dict().keys()
    assert logits(built.eval(), [recording(1)]).shape == (1, 4, 384)


def test_weight_files_follow_the_umask_and_are_synced(tmp_path, monkeypatch):
    """safetensors itself creates a file that only its owner can read."""
    synced = []
    sync = weight_files.sync
    monkeypatch.setattr(weight_files, "sync", lambda path: (synced.append(path.stat().st_size), sync(path)))
    tiny_model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    assert weights.stat().st_mode == (tmp_path / "config.json").stat().st_mode
    assert synced == [weights.stat().st_size]
