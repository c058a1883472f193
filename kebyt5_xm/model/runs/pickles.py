"""The pickles in checkpoint folders of torch and DeepSpeed, which these libraries open by running what they name.

A folder may be a stranger's. So what its pickles name is read beforehand, without running any of it, and held against
what the libraries themselves write there.
"""

import pickle
import re
from pathlib import Path
from typing import Any

from kebyt5_xm.errors import UserError

SHARDED = re.compile(
    r"torch\.distributed\.checkpoint\.(metadata\.\w+|filesystem\._Storage\w+)|torch\.(Size|b?float\w+|u?int\w+|bool)"
    r"|torch\.serialization\._get_layout|pathlib\.\w*Path|collections\.OrderedDict"
)
"""What `.metadata` of torch.distributed.checkpoint names (torch 2.11). The tensors beside it are opened as such."""

DEEPSPEED = re.compile(
    r"deepspeed\.runtime\.(zero|fp16|bf16_optimizer)(\.\w+)*\.[A-Z]\w+|deepspeed\.utils\.tensor_fragment\.fragment_address"
)
"""What DeepSpeed's files name beyond tensors and plain values (0.19.8): its own classes for settings."""


class _Named(Exception):
    """A pickle names something that is not expected in it."""


class _Held(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not SHARDED.fullmatch(f"{module}.{name}"):
            raise _Named(f"{module}.{name}")
        return super().find_class(module, name)


def refuse_code(folder: Path) -> None:
    """Raise `UserError` if a pickle in a checkpoint folder names code that torch or DeepSpeed do not write there."""
    try:
        if (folder / ".metadata").is_file():
            with (folder / ".metadata").open("rb") as file:
                _Held(file).load()
            return
        from torch.serialization import get_unsafe_globals_in_checkpoint

        for path in sorted(folder.rglob("*.pt")):
            for name in get_unsafe_globals_in_checkpoint(path):
                if not DEEPSPEED.fullmatch(name):
                    raise _Named(name)
    except _Named as error:
        raise UserError(
            f"checkpoint '{folder}' names {error} in a pickle, which no checkpoint of this project does; it was not "
            "opened, as that would run it"
        ) from None
    except Exception as error:  # a pickle that is cut or damaged fails in many ways
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint '{folder}' cannot be read ({type(error).__name__}: {cause}); choose another of the run's"
        ) from error
