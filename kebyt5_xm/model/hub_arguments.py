"""Arguments of transformers' `from_pretrained` and `save_pretrained`.

Code that was written for any model of transformers passes these. Each is applied, or refused with a remedy.
"""

import re
from typing import Any

import torch

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.device import open_device
from kebyt5_xm.weight_files import WEIGHTS

LOAD_REMEDIES = {
    "trust_remote_code": "trusted_modules=['PACKAGE'] imports classes of packages that you trust",
    "revision": "download it with `hf download ID --revision REVISION` and give the folder",
    "cache_dir": "set HF_HOME, or give the folder",
    "force_download": "download it with `hf download ID --force-download`",
    "token": "log in with `hf auth login`, or set HF_TOKEN",
    "use_auth_token": "log in with `hf auth login`, or set HF_TOKEN",
    "subfolder": "give the folder itself",
    "variant": "`kebyt5-xm export --dtype` chooses the precision of the file, dtype= that of the model",
    "quantization_config": "dtype='int8' quantises the decoder on a CPU",
    "load_in_8bit": "dtype='int8' quantises the decoder on a CPU",
    "load_in_4bit": "quantise the loaded model with torch.ao, or the text export with its own tools",
    "attn_implementation": "model.backbone.attention of the recipe chooses it in training; a loaded model has sdpa",
    "config": "make the model with CrossModalT5(config) instead",
    "state_dict": "make the model with CrossModalT5(config) and load_state_dict",
    "output_loading_info": "every tensor must fit here, so there is nothing to report",
    "ignore_mismatched_sizes": "every tensor must fit here",
    "max_memory": "device_map takes one device: a model is not spread over several",
    "offload_folder": "device_map takes one device: a model is not spread over several",
}

WITHOUT_EFFECT = ("low_cpu_mem_usage", "use_safetensors", "resume_download", "_fast_init", "weights_only")
"""Arguments that are accepted when true: they describe what happens here anyway."""

SAVE_REMEDIES = {
    "push_to_hub": "`hf upload NAME FOLDER` publishes the folder",
    "repo_id": "`hf upload NAME FOLDER` publishes the folder",
    "token": "`hf upload NAME FOLDER` publishes the folder",
    "variant": f"the file is called {WEIGHTS}",
    "save_function": "tensors are written as safetensors",
}


def refuse_unknown(function: str, given: dict[str, Any], remedies: dict[str, str]) -> None:
    """Raise `UserError` for the first of the `given` arguments that asks for something unsupported."""
    for name, value in given.items():
        if value is None or value is False or (name in WITHOUT_EFFECT and value is True):
            continue
        remedy = remedies.get(name) or f"leave it out{did_you_mean(name, remedies)}"
        raise UserError(f"{function} does not take {name}={value!r:.60}; {remedy}")


def parse_dtype(dtype: Any, torch_dtype: Any) -> torch.dtype | None:
    """Return the requested dtype, `torch.int8` for an int8 decoder; None for the dtype of the file. Raises
    `UserError`.
    """
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise UserError(
            f"found dtype={dtype!r} and torch_dtype={torch_dtype!r}, which are the same argument; give one of them"
        )
    requested = torch_dtype if dtype is None else dtype
    if requested is None or requested == "auto":
        return None
    found = (
        getattr(torch, requested.removeprefix("torch."), None) if isinstance(requested, str) else requested
    )
    if found not in (torch.float32, torch.bfloat16, torch.int8):
        raise UserError(
            f"found dtype={requested!r}, expected torch.bfloat16, torch.float32, torch.int8 (the decoder, on a CPU) "
            "or 'auto' (float16 overflows in a T5)"
        )
    return found


def parse_device_map(device_map: Any) -> torch.device | None:
    """Return the only device of a `device_map`; None for None. Raises `UserError`."""
    if device_map is None:
        return None
    if isinstance(device_map, dict) and list(device_map) == [""]:
        device_map = device_map[""]
    if isinstance(device_map, int) and not isinstance(device_map, bool):
        device_map = f"cuda:{device_map}"
    if isinstance(device_map, torch.device):
        device_map = str(device_map)
    if not isinstance(device_map, str) or device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        raise UserError(
            f"found device_map={device_map!r:.60}, expected one device, such as 'cuda': a model is not spread over "
            "several"
        )
    return open_device(device_map)


def parse_size(max_shard_size: int | str | None) -> int | None:
    """Return a size such as "5GB" or "200MiB" in bytes. Raises `UserError`."""
    if max_shard_size is None or isinstance(max_shard_size, int):
        return max_shard_size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B\s*", str(max_shard_size).upper())
    if match is None:
        raise UserError(f"found max_shard_size={max_shard_size!r}, expected bytes or a size such as '5GB'")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2] or " "))
