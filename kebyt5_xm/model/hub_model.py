"""A model on the hub: how its files are downloaded."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kebyt5_xm.errors import UserError, first_line
from kebyt5_xm.model.model_files import Pretrained


@dataclass(frozen=True)
class Download:
    """How files are fetched from the hub; transformers' arguments of the same names.

    Attributes:
        revision: a branch, a tag or a commit; None is the main branch.
        token: a token, or True for the one of `hf auth login`; None uses it where there is one.
        cache_dir: where files are kept; None is the hub's own cache.
        force_download: fetch files that are in the cache again.
        local_files_only: use no network.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | os.PathLike[str] | None = None
    force_download: bool = False
    local_files_only: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `hf_hub_download` that differ from its own defaults."""
        given = {"revision": self.revision, "token": self.token, "cache_dir": self.cache_dir}
        return {name: value for name, value in given.items() if value is not None}


class HubModel(Pretrained):
    """A model on the hub, or in a folder of a repository there.

    Files in the local cache are used without network access.
    """

    def __init__(self, repo_id: str, download: Download | None = None, subfolder: str = "") -> None:
        self.name = repo_id
        self.download = download or Download()
        self.subfolder = subfolder.strip("/")
        self._unreachable = self.download.local_files_only
        self._fetched: set[str] = set()

    def file(self, name: str) -> Path | None:
        from huggingface_hub import errors, hf_hub_download

        path = f"{self.subfolder}/{name}" if self.subfolder else name
        arguments = self.download.arguments()
        is_forced = self.download.force_download and path not in self._fetched and not self._unreachable
        if not is_forced:
            try:
                return Path(hf_hub_download(self.name, path, local_files_only=True, **arguments))
            except errors.LocalEntryNotFoundError:
                if self._unreachable:
                    return None
        try:
            if is_forced:
                arguments["force_download"] = True
            found = Path(hf_hub_download(self.name, path, **arguments))
        except errors.GatedRepoError as error:
            raise UserError(
                f"'{self.name}' is gated: accept its conditions at https://huggingface.co/{self.name}, log "
                "in with `hf auth login` (or set HF_TOKEN) and try again"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise UserError(
                f"'{self.name}' is neither a local folder nor a model on the hub that you can access; check the "
                "spelling, or log in with `hf auth login` if it is private"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise UserError(
                f"'{self.name}' has no revision '{self.download.revision}'; expected a branch, a tag or a commit of "
                f"https://huggingface.co/{self.name}/commits/main"
            ) from error
        except errors.LocalEntryNotFoundError:
            self._unreachable = True
            return None
        except errors.EntryNotFoundError:
            return None
        except errors.HfHubHTTPError as error:
            raise UserError(
                f"cannot download '{path}' of '{self.name}' from the hub: {first_line(error)}"
            ) from error
        self._fetched.add(path)
        return found

    def missing_error(self, file: str) -> UserError:
        if not self._unreachable:
            place = f" in its folder '{self.subfolder}'" if self.subfolder else ""
            return UserError(
                f"'{self.name}' holds no {file}{place}; expected a T5 model in transformers' layout"
            )
        return UserError(
            f"'{self.name}' is not a local folder, and {file} of the hub model of that name is neither in "
            f"the local cache nor could it be downloaded (no network?); run `hf download {self.name}` "
            "first, or give a folder"
        )
