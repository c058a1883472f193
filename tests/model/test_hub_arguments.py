"""transformers' arguments of from_pretrained and save_pretrained: applied, or refused with a remedy."""

import json
from pathlib import Path

import pytest
import torch
from tiny_model import ROWS, tiny_model

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.hub_arguments import parse_size


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


def test_save_pretrained_accepts_the_arguments_of_a_trainer(model: CrossModalT5, tmp_path: Path) -> None:
    gathered = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(
        tmp_path / "a",
        state_dict=gathered,
        safe_serialization=True,
        push_to_hub=False,
        token=None,
        max_shard_size="1GB",
        save_peft_format=True,
        is_main_process=True,
    )
    loaded = CrossModalT5.from_pretrained(tmp_path / "a").state_dict()
    assert all(loaded[name].equal(tensor) for name, tensor in gathered.items())
    model.save_pretrained(tmp_path / "b", is_main_process=False)
    assert not (tmp_path / "b").exists()
    lacking = {name: tensor for name, tensor in gathered.items() if name != "backbone.shared.weight"}
    for arguments, message in (
        ({"safe_serialization": False}, "no pickles"),
        ({"push_to_hub": True, "state_dict": gathered}, "push_to_hub=True with a state_dict"),
        ({"variant": "fp16"}, "does not take variant='fp16'"),
        ({"max_shard_size": "big"}, "a size such as '5GB'"),
        ({"max_shard_size": 0}, "a size such as '5GB'"),
        ({"distributed_checkpoint": True}, "an export is whole"),
        ({"state_dict": lacking}, r"'state_dict' do not fit .*backbone.shared.weight is missing"),
    ):
        with pytest.raises(UserError, match=message):
            model.save_pretrained(tmp_path / "c", **arguments)
    assert not (tmp_path / "c").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="expected a folder to save into"):
        model.save_pretrained(tmp_path / "file")


def test_from_pretrained_accepts_transformers_arguments(model: CrossModalT5, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for arguments, dtype in (
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"torch_dtype": "bfloat16", "low_cpu_mem_usage": True}, torch.bfloat16),
        ({"dtype": "auto", "device_map": "cpu", "local_files_only": True}, torch.float32),
        ({"device_map": {"": "cpu"}, "trust_remote_code": False, "token": None}, torch.float32),
        ({"revision": "main", "force_download": True, "token": "x", "cache_dir": "y"}, torch.float32),
        ({"attn_implementation": "sdpa", "use_safetensors": True}, torch.float32),
    ):
        loaded = CrossModalT5.from_pretrained(tmp_path, **arguments)
        assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert (
        loaded(**loaded.processor(ROWS[0]), decoder_input_ids=torch.zeros(1, 1, dtype=torch.long))
        .logits.isfinite()
        .all()
    )
    for arguments, message in (
        ({"dtype": torch.float16}, "float16 overflows"),
        ({"dtype": "float31"}, "expected torch.bfloat16"),
        ({"dtype": "float32", "torch_dtype": "bfloat16"}, "give one of them"),
        ({"device_map": "balanced"}, "expected one device"),
        ({"device_map": "cuda:97"}, "cannot compute on 'cuda:97'"),
        ({"trust_remote_code": True}, "trusted_modules="),
        ({"revision": "v2"}, "has no revisions"),
        ({"subfolder": "deeper"}, "correct `subfolder`"),
        ({"attn_implementation": "eager"}, "a loaded model has sdpa"),
        ({"use_safetensors": False}, "exports are safetensors"),
        ({"key_mapping": {"a": "b"}}, "every tensor must have its own name"),
        ({"config": {"slot_bias": "zero"}}, "expected a CrossModalT5Config"),
        ({"trusted_module": ["x"]}, "does not take trusted_module"),
    ):
        with pytest.raises(UserError, match=message):
            CrossModalT5.from_pretrained(tmp_path, **arguments)
    with pytest.raises(UserError, match="slots need no tokens"):
        model.resize_token_embeddings(400)


def test_local_files_only_uses_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def download(repo_id: str, name: str, local_files_only: bool = False) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(UserError, match="neither in the local cache"):
        CrossModalT5.from_pretrained("someone/absent-byt5", local_files_only=True)
    assert asked
    assert all(asked)


def test_sizes_with_units() -> None:
    assert [parse_size(size) for size in (None, 7, "7B", "1.5KB", "2KiB", "5 GB")] == [
        5 * 10**9,
        7,
        7,
        1500,
        2048,
        5 * 10**9,
    ]


ABSURD = {
    "d_model": (10**9, -1, 0, True, 1.5, "29", None, [], {}),
    "num_layers": (10**9,),
    "num_decoder_layers": (10**9, 0),
    "vocab_size": (10**9, 7),
    "feed_forward_proj": ("os.system", 3),
    "layer_norm_epsilon": (float("nan"), "x"),
    "pad_token_id": (-1, 10**9, None),
}


def test_a_config_of_absurd_values_gives_one_line(model: CrossModalT5, tmp_path: Path) -> None:
    """A third-party config.json may hold any value; it is refused before anything is allocated."""
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())

    def refused(changed: object, message: str) -> None:
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=message):
            CrossModalT5.from_pretrained(tmp_path)

    for key, values in ABSURD.items():
        for value in values:
            refused(
                {**content, "backbone": {**content["backbone"], key: value}}, key if value != 7 else "tensors"
            )
    for key, value in (("backbone", [1]), ("modalities", {"image": 3}), ("byte_rms", "x"), ("slot_bias", [])):
        refused({**content, key: value}, f"says {key}: ")
    refused([content], "holds a list, expected a mapping")
    specs = content["modalities"]
    image = specs["image"]
    bombs = ({"out_dim": 10**9}, {"out_dim": 2**20, "image_size": [16, 24], "patch_size": 8})
    for bomb in bombs:
        init_args = {**image["encoder"]["init_args"], **bomb}
        encoder = {**image["encoder"], "init_args": init_args}
        changed = {**specs, "image": {**image, "encoder": encoder}}
        refused(
            {**content, "modalities": changed}, "image|in one tensor|do not fit|values in one|would be made"
        )
    for nested in ("kebyt5_xm.training.cli.TrainingCLI", "kebyt5_xm.model.runs.run.Run"):
        init_args = {**image["encoder"]["init_args"], "out_dim": {"class_path": nested, "init_args": {}}}
        encoder = {**image["encoder"], "init_args": init_args}
        refused(
            {**content, "modalities": {**specs, "image": {**image, "encoder": encoder}}},
            "is not a class of the kind Module",
        )


def test_weights_of_another_dtype_or_shape_give_one_line(model: CrossModalT5, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path)
    (tmp_path / "digests.json").unlink()  # as of a model that others saved
    path = tmp_path / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = "backbone.shared.weight"
    for changed, message in (
        ({**tensors, name: tensors[name].long()}, f"{name} is torch.int64, expected torch.float32"),
        ({**tensors, name: tensors[name].to(torch.float8_e4m3fn)}, f"{name} is torch.float8_e4m3fn"),
        ({**tensors, name: tensors[name][:7]}, rf"{name} is \(7, 29\), expected \(384, 29\)"),
        ({**tensors, "backbone.x": torch.ones(3)}, "x is unknown"),
    ):
        save_file(changed, path)
        with pytest.raises(UserError, match=message.removeprefix("backbone.")):
            CrossModalT5.from_pretrained(tmp_path)
