"""Pretrained weights: a failure to load them is told in one line, with its cause and the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from kebyt5_xm.errors import UserError


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn whatever the block raises while it loads `name` into one `UserError`.

    Libraries raise many kinds here: connection errors, missing cache entries, broken archives, wrong shapes.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        if type(error).__name__ == "GatedRepoError" or "gated repo" in str(error):
            raise UserError(
                f"found '{name}' to be gated, expected access to it; accept its terms on "
                f"https://huggingface.co/{name} and log in with: hf auth login"
            ) from error
        raise UserError(
            f"found no usable weights for '{name}' ({type(error).__name__}: {cause[:300]}), expected them in the "
            "cache, on the network or at that path; load them once with a network, name a local copy, or set "
            "pretrained: false for random weights (HF_HUB_OFFLINE=1 spares the retries where there is no network)"
        ) from error


def checkpoint_file(path: str) -> Path:
    """Return the path of a checkpoint; raise `UserError` if no file is there."""
    if not Path(path).is_file():
        raise UserError(f"found no file '{path}', expected a checkpoint; correct checkpoint_path")
    return Path(path)


def load_exactly(model: nn.Module, state_dict: dict[str, Tensor], name: str) -> None:
    """Load `state_dict` into `model`; raise `UserError` if it lacks a tensor or has one of another shape."""
    own = model.state_dict()
    missing = [key for key in own if key not in state_dict]
    if missing:
        raise UserError(
            f"found no '{missing[0]}' in '{name}' ({len(missing)} of {len(own)} tensors are missing), expected the "
            "names of the model's own library; convert the checkpoint or name the model it was made for"
        )
    wrong = [key for key in own if own[key].shape != state_dict[key].shape]
    if wrong:
        raise UserError(
            f"found '{wrong[0]}' of shape {list(state_dict[wrong[0]].shape)} in '{name}', expected "
            f"{list(own[wrong[0]].shape)}; name the model that the checkpoint was made for"
        )
    model.load_state_dict({key: state_dict[key] for key in own})
