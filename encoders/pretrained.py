"""Loading pretrained weights, with failures as one-line errors that name cause and remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from kebyt5_xm.errors import UserError


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn any exception of this block, which loads `name`, into a `UserError`.

    Libraries raise many kinds: connection errors, missing cache entries, broken archives, wrong shapes.
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
            "pretrained: false for random weights (HF_HUB_OFFLINE=1 avoids retries without a network)"
        ) from error


def checkpoint_file(path: str) -> Path:
    """Return the path of a checkpoint; raise `UserError` if the file does not exist."""
    if not Path(path).is_file():
        raise UserError(f"found no file '{path}', expected a checkpoint; correct checkpoint_path")
    return Path(path)


def load_exactly(model: nn.Module, state_dict: dict[str, Tensor], name: str) -> None:
    """Load `state_dict` without its extra tensors; raise `UserError` for missing tensors or other shapes."""
    expected = model.state_dict()
    missing = [key for key in expected if key not in state_dict]
    if missing:
        raise UserError(
            f"found no '{missing[0]}' in '{name}' ({len(missing)} of {len(expected)} tensors are missing), expected "
            "the names of the model's own library; convert the checkpoint or name the matching model"
        )
    wrong = [key for key in expected if expected[key].shape != state_dict[key].shape]
    if wrong:
        raise UserError(
            f"found '{wrong[0]}' of shape {list(state_dict[wrong[0]].shape)} in '{name}', expected "
            f"{list(expected[wrong[0]].shape)}; name the model of this checkpoint"
        )
    model.load_state_dict({key: state_dict[key] for key in expected})
