"""Publishing: what a repository of the hub receives, recorded by a fake of huggingface_hub's API."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError
from tiny_model import tiny_model

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.publishing import REPLACED

EXPORT_CARD = "---\nlibrary_name: kebyt5-xm\ntags:\n- kebyt5-xm\n---\n\n# The export\n\nExact match 97.8.\n"


class Hub:
    """Records the calls of a client, and keeps what was uploaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, client: HfApi, repo_id: str, **options: Any) -> Any:
        self.calls.append(("create_repo", {"repo_id": repo_id, "token": client.token, **options}))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"someone/{repo_id}")

    def create_branch(self, client: HfApi, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", {"repo_id": repo_id, **options}))

    def upload_folder(self, client: HfApi, **options: Any) -> Any:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(options.pop("folder_path"), self.folder)
        self.calls.append(("upload_folder", options))
        pr_url = "https://hub/pr/7" if options["create_pr"] else None
        return SimpleNamespace(pr_url=pr_url, commit_url="https://hub/commit/1")

    @property
    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "repository")
    for name in ("create_repo", "create_branch", "upload_folder"):
        method = getattr(fake, name)
        monkeypatch.setattr(HfApi, name, lambda client, *a, _method=method, **k: _method(client, *a, **k))
    return fake


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A saved model with a card and terms, as an export has them."""
    folder = tmp_path / "export"
    model = tiny_model(kebyt5_xm={"licence": "cc-by-nc-4.0", "started_from": ["someone/tiny-byt5"]})
    model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    (folder / "README.md").write_text(EXPORT_CARD)
    (folder / "NOTICE").write_text("research only\n")
    (folder / "origin").mkdir()
    (folder / "origin" / "LICENSE").write_text("their terms")
    return folder


FILES = [
    *("NOTICE", "README.md", "config.json", "digests.json", "generation_config.json", "model.safetensors"),
    *("origin/LICENSE", "processor_config.json"),
]


def test_an_unchanged_export_is_published_with_its_own_card_and_terms(hub: Hub, export: Path):
    model = CrossModalT5.from_pretrained(export)
    address = model.push_to_hub(
        "someone/xm", private=True, token="hf_x", commit_message="First", tags=["korean", "kebyt5-xm"]
    )
    assert address == "https://hub/commit/1"
    assert hub.files == FILES
    card = ModelCard.load(hub.folder / "README.md")
    assert "Exact match 97.8." in card.text
    assert card.data.to_dict()["tags"] == ["kebyt5-xm", "korean"]
    (_, made), (_, upload) = hub.calls
    assert made == {"repo_id": "someone/xm", "token": "hf_x", "private": True, "exist_ok": True}
    assert (upload["commit_message"], upload["delete_patterns"]) == ("First", list(REPLACED))
    published = CrossModalT5.from_pretrained(hub.folder)
    assert all(t.equal(published.state_dict()[key]) for key, t in model.state_dict().items())


def test_a_changed_model_gets_a_card_that_claims_no_results(hub: Hub, export: Path):
    for change in ("trained", "converted"):
        model = CrossModalT5.from_pretrained(export, dtype="bfloat16" if change == "converted" else None)
        if change == "trained":
            with torch.no_grad():
                model.backbone.lm_head.weight.add_(1)
        model.push_to_hub("xm", revision="next", create_pr=True)
        assert hub.files == FILES
        card = ModelCard.load(hub.folder / "README.md")
        assert "97.8" not in card.text
        assert "descend from those of export <- someone/tiny-byt5" in card.text
        assert "see NOTICE" in card.text
        data = card.data.to_dict()
        assert (data["library_name"], data["license"]) == ("kebyt5-xm", "cc-by-nc-4.0")
        assert data["base_model"] == "someone/tiny-byt5"
    assert [name for name, _ in hub.calls[:3]] == ["create_repo", "create_branch", "upload_folder"]
    assert hub.calls[1][1] == {"repo_id": "someone/xm", "branch": "next", "exist_ok": True}


@pytest.mark.parametrize("name", ["README.md", "NOTICE", "origin/LICENSE"])
def test_a_link_out_of_the_export_is_not_published(hub: Hub, export: Path, tmp_path: Path, name: str):
    (tmp_path / "secret").write_text("a key")
    (export / name).unlink()
    (export / name).symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"is a link to '.*secret'"):
        CrossModalT5.from_pretrained(export).push_to_hub("someone/xm")
    assert hub.calls == []


def test_saving_publishes_too(hub: Hub, tmp_path: Path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "new", push_to_hub=True, token="hf_y", max_shard_size="40KB")
    assert (tmp_path / "new" / "config.json").is_file()
    assert hub.calls[0][1]["repo_id"] == "new"
    assert hub.calls[0][1]["token"] == "hf_y"
    assert "model.safetensors.index.json" in hub.files
    assert "base_model" not in ModelCard.load(hub.folder / "README.md").data.to_dict()
    model.processor.save_pretrained(tmp_path / "new", push_to_hub=True, repo_id="someone/other")
    assert hub.files == ["processor_config.json"]
    assert hub.calls[-1][1]["commit_message"] == "Upload processor"
    assert hub.calls[-1][1]["delete_patterns"] is None
    model.processor.push_to_hub("someone/other", commit_message="Again")
    assert hub.calls[-1][1]["commit_message"] == "Again"


def test_what_cannot_be_published(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = tiny_model()
    with pytest.raises(UserError, match=r"push_to_hub does not take privat=True; .*did you mean 'private'"):
        model.push_to_hub("someone/xm", privat=True)
    with pytest.raises(UserError, match="does not take safe=1"):
        model.processor.save_pretrained(tmp_path, safe=1)
    assert hub.calls == []

    def refuse(*_: Any, **__: Any) -> None:
        raise LocalTokenNotFoundError("Token is required")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=r"cannot publish to 'someone/xm': Token is required; log in with"):
        model.push_to_hub("someone/xm")
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"found the repository 'a b/c/d', expected NAME or OWNER/NAME"):
        model.push_to_hub("a b/c/d")


def test_a_model_of_a_run_is_exported_first(hub: Hub, tmp_path: Path):
    from kebyt5_xm.model.pretrained import RunBackbone
    from kebyt5_xm.model.runs.run import Run

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: {}\n")
    model = tiny_model()
    model.loaded_from = RunBackbone(Run(tmp_path / "run"))
    with pytest.raises(UserError, match=r"`kebyt5-xm export .*run --out FOLDER`, then `hf upload someone/xm"):
        model.push_to_hub("someone/xm")
    assert hub.calls == []
