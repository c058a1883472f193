"""The backbone: its sizes, the sources of its weights, and that every tensor keeps its name."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import SHAPES, Backbone, backbone_hash
from kebyt5_xm.model.hub_model import HubModel
from kebyt5_xm.model.t5 import EMBEDDING_ALIASES, saved_state, t5, without_weights

SHAPE = {"d_model": 13, "d_ff": 17, "num_heads": 3, "num_layers": 5, "num_decoder_layers": 2, "d_kv": 7}

CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "tokenizer_class": "ByT5Tokenizer",
    "vocab_size": 384,
    **SHAPE,
    "feed_forward_proj": "gated-gelu",
    "layer_norm_epsilon": 1e-06,
    "dropout_rate": 0.1,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "is_encoder_decoder": True,
    "gradient_checkpointing": False,
    "transformers_version": "4.7.0.dev0",
}


def distinct_tensors() -> dict[str, torch.Tensor]:
    """Return tensors of the shape above under the published names, all different, small enough to compute with."""
    shapes = {
        name: t.shape for name, t in saved_state(without_weights(Backbone(shape=SHAPE).config())).items()
    }
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(shape, generator=generator) / 3 for name, shape in shapes.items()}


def publish(
    folder: Path, tensors: dict[str, torch.Tensor], suffix: str = "safetensors", **config: object
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    if suffix == "safetensors":
        save_file({name: t.clone() for name, t in tensors.items()}, folder / "model.safetensors")
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("mini", 124_286_464), ("small", 299_637_760), ("base", 581_653_248), ("large", 1_228_183_552)],
)
def test_sizes_have_their_parameter_counts(size, parameters):
    model = without_weights(Backbone(size=size).config())
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(sizes.values()) == parameters
    assert "lm_head.weight" in sizes
    assert not set(EMBEDDING_ALIASES) & sizes.keys()


def test_from_scratch():
    torch.manual_seed(3)
    model = Backbone(size="mini", shape={**SHAPE, "d_model": 128}, dropout=0.1, attention="eager").build()
    config = model.config
    assert (config.d_model, config.num_decoder_layers, config.d_kv, config.dropout_rate) == (128, 2, 7, 0.1)
    assert config._attn_implementation == model.decoder.config._attn_implementation == "eager"
    assert model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight is model.shared.weight
    assert model.lm_head.weight is not model.shared.weight
    # The first loss of random weights is near that of 384 equal choices (5.95 nats), not near 110.
    ids = torch.randint(3, 259, (2, 11))
    assert model.training
    assert 5.5 < model(input_ids=ids, labels=ids).loss.item() < 7


def test_transformers_own_saving_keeps_the_head_untied(tmp_path):
    from transformers import T5ForConditionalGeneration

    model = Backbone(shape=SHAPE).build()
    model.tie_weights()
    assert model.lm_head.weight is not model.shared.weight
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    again = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert backbone_hash(again) == backbone_hash(model)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("aliases", [(), EMBEDDING_ALIASES])
def test_warm_start_trains_and_saves_every_tensor_under_its_name(tmp_path, suffix, aliases):
    from kebyt5_xm.commands.export.export import export_backbone

    tensors = distinct_tensors()
    copies = dict.fromkeys(aliases, tensors["shared.weight"])
    folder = publish(tmp_path / "published", tensors | copies, suffix)

    model = Backbone(weights=str(folder)).build()
    assert {n: t.tolist() for n, t in saved_state(model).items()} == {
        n: t.tolist() for n, t in tensors.items()
    }
    assert model.config.dropout_rate == 0
    assert model.training

    # One step of SGD on three tensors that are easily confused; the others must not change.
    moved = ("shared.weight", "lm_head.weight", "decoder.block.1.layer.1.EncDecAttention.k.weight")
    optimizer = torch.optim.SGD([p for n, p in model.named_parameters() if n in moved], lr=0.5)
    ids = torch.randint(3, 259, (2, 11), generator=torch.Generator().manual_seed(5))
    model(input_ids=ids, labels=ids.flip(1)).loss.backward()
    expected = dict(tensors)
    for name in moved:
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().max() > 0
        expected[name] = tensors[name] - 0.5 * gradient
    optimizer.step()

    export_backbone(model, tmp_path / "out", denoising={})
    again = Backbone(weights=str(tmp_path / "out")).build()
    for name, tensor in saved_state(again).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-7, msg=name)
    assert saved_state(again).keys() == expected.keys()


def test_warm_start_reads_shards_half_precision_and_one_of_the_embeddings_names(tmp_path):
    tensors = {name: tensor.bfloat16() for name, tensor in distinct_tensors().items()}
    stored = dict(tensors)
    stored["decoder.embed_tokens.weight"] = stored.pop("shared.weight")
    stored["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(32, 3)
    folder = publish(tmp_path, {})
    (folder / "model.safetensors").unlink()
    names = sorted(stored)
    shards = {"model-1.safetensors": names[:29], "model-2.safetensors": names[29:]}
    for shard, its_names in shards.items():
        save_file({name: stored[name] for name in its_names}, folder / shard)
    weight_map = {name: shard for shard, its_names in shards.items() for name in its_names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    state = saved_state(Backbone(weights=str(folder)).build())
    assert state.keys() == tensors.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, tensors[name].float(), rtol=0, atol=0, msg=name)


def test_config_needs_no_weights_and_takes_the_checkpoints_shape(tmp_path):
    folder = publish(tmp_path, {}, vocab_size=397, relative_attention_max_distance=131)
    (folder / "model.safetensors").unlink()
    config = Backbone(weights=str(folder), shape={"num_heads": 3}).config()
    assert (config.vocab_size, config.d_ff, config.relative_attention_max_distance) == (397, 17, 131)
    assert config.tie_word_embeddings is False
    with pytest.raises(UserError, match=r"holds no model.safetensors or pytorch_model.bin"):
        Backbone(weights=str(folder)).build()


def test_frozen_and_gradient_checkpointing_are_applied():
    model = Backbone(shape=SHAPE, frozen=True, gradient_checkpointing=True).build()
    assert model.is_activation_checkpointing
    assert not any(p.requires_grad for p in model.parameters())
    embedded = torch.randn(2, 11, 13, requires_grad=True)  # an adapter's output still gets its gradient
    model(inputs_embeds=embedded, labels=torch.full((2, 5), 97), use_cache=False).loss.backward()
    assert embedded.grad is not None
    assert embedded.grad.abs().sum() > 0


def test_hash_changes_with_values_names_and_dtype():
    torch.manual_seed(11)
    model = Backbone(shape=SHAPE).build()
    first = backbone_hash(model)
    model.activation_checkpointing_enable()
    assert backbone_hash(model) == first
    with torch.no_grad():
        model.decoder.final_layer_norm.weight[-1] += 1e-6
    second = backbone_hash(model)
    q, k = (getattr(model.encoder.block[1].layer[0].SelfAttention, name) for name in "qk")
    q.weight, k.weight = k.weight, q.weight
    third = backbone_hash(model)
    assert len({first, second, third, backbone_hash(model.bfloat16())}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither `size` nor `weights`"),
        ({"shape": {"d_model": 128}}, "lacks d_ff, num_heads, num_layers, num_decoder_layers"),
        ({"size": "smal"}, "did you mean 'small'"),
        ({"size": "mini", "shape": {"d_modle": 128}}, "did you mean 'd_model'"),
        ({"size": "mini", "shape": {"d_ff": 0}}, r"shape.d_ff is 0"),
        ({"size": "mini", "shape": {"num_layers": 2}}, "3 decoder layers over 2 encoder layers"),
        ({"size": "mini", "dropout": 1.5}, "dropout is 1.5"),
        ({"size": "mini", "dropout": 0.1, "frozen": True}, "but the backbone is frozen"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Backbone(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("lm_head.weight"), "lm_head.weight is missing"),
        (lambda t: t.update({"extra.bias": torch.ones(3)}), "extra.bias is unknown"),
        (
            lambda t: t.update({"encoder.final_layer_norm.weight": torch.ones(11)}),
            r"encoder.final_layer_norm.weight is \(11,\), expected \(13,\)",
        ),
        (
            lambda t: t.update({"encoder.embed_tokens.weight": t["shared.weight"] + 1}),
            "another embedding in encoder.embed_tokens.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    tensors = distinct_tensors()
    change(tensors)
    with pytest.raises(UserError, match=message):
        Backbone(weights=str(publish(tmp_path, tensors))).build()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tie_word_embeddings": True}, "ties the head to the embedding"),
        ({"model_type": "bert"}, "of a 'bert' model"),
        ({"tokenizer_class": "T5Tokenizer"}, "with a T5Tokenizer"),
        ({"vocab_size": 250}, "vocabulary of 250"),
    ],
)
def test_configs_of_other_models_are_refused(tmp_path, config, message):
    with pytest.raises(UserError, match=message):
        Backbone(weights=str(publish(tmp_path, {}, **config))).config()


def test_size_must_agree_with_weights(tmp_path):
    folder = str(publish(tmp_path, {}, **SHAPES["small"], d_kv=64))
    assert Backbone(weights=folder, size="small").config().num_heads == 6
    with pytest.raises(UserError, match=r"d_model 1536 \(in the weights: 1472\)"):
        Backbone(weights=folder, size="base").config()


def test_broken_weight_files_give_one_clear_line(tmp_path):
    folder = publish(tmp_path, distinct_tensors())
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-97])
    with pytest.raises(UserError, match="may be incomplete"):
        Backbone(weights=str(folder)).build()
    file.unlink()
    torch.save({"shared.weight": print}, folder / "pytorch_model.bin")  # a pickle that imports something
    with pytest.raises(UserError, match=r"pytorch_model.bin' cannot be read"):
        Backbone(weights=str(folder)).build()
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        Backbone(weights=str(folder)).config()
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"neither config.json, as a model folder does, nor config.yaml"):
        Backbone(weights=str(folder)).config()


class TestHub:
    """The hub, with a separate cache and no network."""

    @pytest.fixture(autouse=True)
    def offline(self, tmp_path, monkeypatch):
        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def test_cached_model_is_read_without_network(self, tmp_path):
        tensors = distinct_tensors()
        repo = tmp_path / "models--someone--tiny-byt5"
        publish(repo / "snapshots" / "0123abc", tensors, "bin")
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text("0123abc")
        model = Backbone(weights="someone/tiny-byt5").build()
        torch.testing.assert_close(saved_state(model), tensors, rtol=0, atol=0)
        (repo / "snapshots" / "0123abc" / "pytorch_model.bin").unlink()
        with pytest.raises(
            UserError, match=r"pytorch_model.bin of the hub model .*`hf download someone/tiny-byt5"
        ):
            Backbone(weights="someone/tiny-byt5").build()

    def test_missing_model(self):
        with pytest.raises(
            UserError, match=r"not a local folder, and config.json .*no network\?.* or give a folder"
        ):
            Backbone(weights="runs/misspelt").config()
        with pytest.raises(UserError, match="nor a hub id"):
            Backbone(weights="./runs/misspelt").config()

    def test_an_unreachable_network_is_tried_once(self, monkeypatch):
        import huggingface_hub
        from huggingface_hub import errors

        asked = []

        def download(repo_id, filename, local_files_only=False):
            asked.extend([] if local_files_only else [filename])
            raise errors.LocalEntryNotFoundError("not cached")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        with pytest.raises(UserError, match="no network"):
            HubModel("a/b").tensors()  # each of four files would be accepted
        assert asked == ["model.safetensors"]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "GatedRepoError",
                r"gated: accept its conditions at https://huggingface.co/a/b, .*hf auth login",
            ),
            ("RepositoryNotFoundError", "neither a local folder nor a model on the hub"),
            ("RemoteEntryNotFoundError", r"'a/b' holds no config.json"),
            ("DisabledRepoError", "cannot download 'config.json' of 'a/b' from the hub: down"),
        ],
    )
    def test_errors_of_the_hub(self, monkeypatch, name, message):
        import huggingface_hub
        from huggingface_hub import errors

        response = SimpleNamespace(headers={}, request=None)
        answer = getattr(errors, name)("down\nfor reasons", response=response)

        def download(repo_id, filename, local_files_only=False):
            raise errors.LocalEntryNotFoundError("not cached") if local_files_only else answer

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        with pytest.raises(UserError, match=message):
            Backbone(weights="a/b").config()


def test_a_tied_config_cannot_be_built():
    from transformers import T5Config

    with pytest.raises(AssertionError, match="t5_config"):
        t5(T5Config(**SHAPE))
