"""Arguments of transformers' `from_pretrained` and `save_pretrained`.

Code that was written for any model of transformers passes these. Each is applied, or refused with a remedy.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.device import open_device
from kebyt5_xm.weight_files import MAX_SHARD_BYTES, WEIGHTS

LOAD_REMEDIES = {
    "trust_remote_code": "trusted_modules=['PACKAGE'] imports classes of packages that you trust",
    "use_auth_token": "token=... is its name today",
    "proxies": "set HTTPS_PROXY",
    "mirror": "set HF_ENDPOINT",
    "variant": "`kebyt5-xm export --dtype` chooses the precision of the file, dtype= that of the model",
    "quantization_config": "dtype='int8' quantises the decoder on a CPU",
    "load_in_8bit": "dtype='int8' quantises the decoder on a CPU",
    "load_in_4bit": "quantise the loaded model with torch.ao, or the text export with its own tools",
    "attn_implementation": "model.backbone.attention of the recipe chooses it in training; a loaded model has sdpa",
    "generation_config": "set model.generation_config, or pass the arguments to answer or generate",
    "output_loading_info": "every tensor must fit here, so there is nothing to report",
    "ignore_mismatched_sizes": "every tensor must fit here",
    "key_mapping": "every tensor must have its own name here; rename them and pass state_dict=",
    "use_safetensors": "exports are safetensors; leave it out",
    "weights_only": "no pickle is ever run; leave it out",
    "from_tf": "only PyTorch's formats are read",
    "from_flax": "only PyTorch's formats are read",
    "max_memory": "device_map takes one device: a model is not spread over several",
    "offload_folder": "device_map takes one device: a model is not spread over several",
    "offload_state_dict": "device_map takes one device: a model is not spread over several",
    "offload_buffers": "device_map takes one device: a model is not spread over several",
    "tp_plan": "`trainer.strategy` of a recipe shards a model in training; a loaded model is on one device",
}
"""Arguments of `from_pretrained` that are refused -> what to do instead."""

WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
    "low_cpu_mem_usage": (True, False),
    "use_safetensors": (True,),
    "resume_download": (True, False),
    "_fast_init": (True, False),
    "weights_only": (True,),
    "save_peft_format": (True, False),
    "save_original_format": (True, False),
    "attn_implementation": ("sdpa",),
}
"""Arguments that are accepted with these values: they describe what happens here anyway."""

FROM_AUTO_CLASSES = ("_from_auto", "_from_pipeline", "_commit_hash", "adapter_kwargs", "code_revision")
"""What the Auto classes of transformers add to every call; it concerns none of our files."""

FROM_MODEL = (*FROM_AUTO_CLASSES, "dtype", "torch_dtype", "device_map", "use_fast")
"""What a pipeline passes to the processor too, meant for the model."""

SAVE_REMEDIES = {
    "variant": f"the file is called {WEIGHTS}",
    "save_function": "tensors are written as safetensors",
    "distributed_checkpoint": "`trainer.strategy` of a recipe writes sharded checkpoints; an export is whole",
}
"""Arguments of `save_pretrained` that are refused -> what to do instead."""


def refuse_unknown(
    function: str,
    given: Mapping[str, Any],
    remedies: Mapping[str, str],
    without_effect: Mapping[str, tuple[object, ...]] = WITHOUT_EFFECT,
) -> None:
    """Raise `UserError` for the first of the `given` arguments that asks for something unsupported.

    Accepted are None and the values in `without_effect`, for a name that is not there False.
    """
    for name, value in given.items():
        if value is None or value in without_effect.get(name, (False,)):
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
    """Return the only device of a `device_map`; `auto` is a GPU if there is one, None is None. Raises `UserError`."""
    if device_map is None:
        return None
    if isinstance(device_map, str) and device_map == "auto":
        device_map = "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(device_map, dict) and list(device_map) == [""]:
        device_map = device_map[""]
    if isinstance(device_map, int) and not isinstance(device_map, bool):
        device_map = f"cuda:{device_map}"
    if isinstance(device_map, torch.device):
        device_map = str(device_map)
    if not isinstance(device_map, str) or device_map in ("balanced", "balanced_low_0", "sequential"):
        raise UserError(
            f"found device_map={device_map!r:.60}, expected one device, such as 'cuda': a model is not spread over "
            "several"
        )
    return open_device(device_map)


def parse_size(max_shard_size: int | str | None) -> int:
    """Return a size such as "5GB" or "200MiB" in bytes; None is `MAX_SHARD_BYTES`. Raises `UserError`."""
    if max_shard_size is None:
        return MAX_SHARD_BYTES
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B\s*", str(max_shard_size).upper())
    size = max_shard_size if isinstance(max_shard_size, int) else 0
    if match is not None:
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2] or " "))
    if isinstance(max_shard_size, bool) or size < 1:
        raise UserError(f"found max_shard_size={max_shard_size!r}, expected bytes or a size such as '5GB'")
    return size
