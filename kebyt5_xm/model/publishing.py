"""Publishes a model or a processor in a repository of the hub.

A model goes there with its processor, its card, and the terms of the weights that it started from.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.errors import UserError, did_you_mean, first_line
from kebyt5_xm.model.hub_model import HubModel
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.model.origin import Origin, copy_file_terms, own_file
from kebyt5_xm.model.pretrained import RunBackbone
from kebyt5_xm.model.saving import save
from kebyt5_xm.weight_files import ABOUT, DIGESTS, WEIGHTS, read_digests

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from kebyt5_xm.model.network import CrossModalNetwork
    from kebyt5_xm.model.saved_processor import SavedProcessor

CARD = "README.md"

REPLACED = ("model*.safetensors", f"{WEIGHTS}.index.json", "draft_heads.safetensors")
"""Files of an earlier model in the repository, deleted in the same commit unless they are written again."""


@dataclass(frozen=True)
class Upload:
    """How a commit is made; arguments of transformers' `push_to_hub` by the same names.

    Attributes:
        commit_message: its first line.
        commit_description: its text.
        private: make a new repository private; None leaves it to the organisation.
        token: a token, or None for that of `hf auth login`.
        revision: the branch, made if there is none; None is the main branch.
        create_pr: open a pull request instead of committing.
    """

    commit_message: str | None = None
    commit_description: str | None = None
    private: bool | None = None
    token: str | bool | None = None
    revision: str | None = None
    create_pr: bool = False

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Upload":
        """Return the upload with these arguments. Raises `UserError` for another one."""
        for name in given:
            if name not in UPLOAD_ARGUMENTS:
                raise UserError(
                    f"push_to_hub does not take {name}={given[name]!r:.60}; expected {', '.join(UPLOAD_ARGUMENTS)}"
                    f"{did_you_mean(name, UPLOAD_ARGUMENTS)}"
                )
        return cls(**given)

    def send(self, folder: Path, repo_id: str, what: str, replaced: Sequence[str] = ()) -> str:
        """Upload a folder as one commit and return its address; `what` is in the default message.

        Files of the repository that match `replaced` and are not in the folder are deleted. Raises `UserError` for
        what the hub refuses.
        """
        from huggingface_hub import HfApi

        with _explained(repo_id):
            api = HfApi(token=self.token)
            repo = api.create_repo(repo_id, private=self.private, exist_ok=True).repo_id
            if self.revision is not None and not self.revision.startswith("refs/pr"):
                api.create_branch(repo, branch=self.revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=self.commit_message or f"Upload {what}",
                commit_description=self.commit_description,
                revision=self.revision,
                create_pr=self.create_pr,
                delete_patterns=list(replaced) or None,
            )
        return str(commit.pr_url or commit.commit_url)


UPLOAD_ARGUMENTS = tuple(field.name for field in fields(Upload))
"""The arguments that say how a commit is made."""


def publish_model(
    model: "CrossModalNetwork",
    repo_id: str,
    upload: Upload,
    processor: "SavedProcessor",
    max_shard_bytes: int,
    tags: Sequence[str] = (),
) -> str:
    """Publish a model with its processor, card and terms, and return the address of the commit.

    Raises `UserError` for a model of a run, whose card and terms an export writes, and for what the hub refuses.
    """
    source: Pretrained | None = getattr(model, "loaded_from", None)
    if isinstance(source, RunBackbone):
        raise UserError(
            f"the model was loaded from the run '{source.name}', which has no card; expected an export: "
            f"`kebyt5-xm export {source.name} --out FOLDER`, then `hf upload {repo_id} FOLDER`"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(model, folder, max_shard_bytes=max_shard_bytes)
        processor.save_pretrained(folder)
        if source is not None:
            copy_file_terms(source, folder)
        card = _card(model, source, folder, repo_id)
        data: Any = card.data
        data.tags = list(dict.fromkeys([*(data.tags or ()), *tags]))
        card.save(folder / CARD)
        return upload.send(folder, repo_id, "model", REPLACED)


def publish_processor(processor: "SavedProcessor", repo_id: str, upload: Upload) -> str:
    """Publish the settings of a processor, and return the address of the commit. Raises `UserError`."""
    with tempfile.TemporaryDirectory() as temporary:
        processor.save_pretrained(temporary)
        return upload.send(Path(temporary), repo_id, "processor")


def _card(model: "CrossModalNetwork", source: Pretrained | None, folder: Path, repo_id: str) -> "ModelCard":
    """Return the card of the source if the weights in `folder` are those it describes, else a short one."""
    from huggingface_hub import ModelCard, ModelCardData

    path = None if source is None else own_file(source, CARD)
    if source is not None and path is not None and source.digests == read_digests(folder / DIGESTS):
        return ModelCard.load(path)
    origin = Origin.read({ABOUT: model.config.kebyt5_xm})
    start = [source.name if isinstance(source, HubModel) else Path(source.name).name] if source else []
    started_from = [*start, *(name for name in origin.started_from if name not in start)]
    hub_ids = [name for name in started_from if "/" in name]
    data = ModelCardData(
        library_name="kebyt5-xm",
        license=origin.licence,
        base_model=hub_ids[0] if hub_ids else None,
        tags=["byt5", "byte-level", "kebyt5-xm"],
    )
    lines = [
        f"# {repo_id.rpartition('/')[2]}",
        "A byte-level T5 with modalities, loaded by `CrossModalT5.from_pretrained` of the package kebyt5-xm.",
    ]
    if started_from:
        lines.append(
            f"Its weights descend from those of {' <- '.join(started_from)}, and are not the same: what a card there "
            "says about results need not hold for these."
        )
    if origin.licence or (folder / "NOTICE").is_file():
        lines.append(
            f"License: {origin.licence or 'not stated by its origin'}; see NOTICE, whose limits of use apply here."
        )
    return ModelCard("\n\n".join([f"---\n{data}\n---", *lines]) + "\n")


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turn what the hub's client raises into a `UserError` with the remedy."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise UserError(
            f"found the repository '{repo_id}', expected NAME or OWNER/NAME: {first_line(error)}"
        ) from error
    except Exception as error:  # its own, those of its HTTP library, and OSError without a token or a network
        raise UserError(
            f"cannot publish to '{repo_id}': {first_line(error)}; log in with `hf auth login` as someone who may "
            "write there, or save the model and upload the folder later with `hf upload`"
        ) from error
