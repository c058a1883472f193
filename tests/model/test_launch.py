"""Ranks of one launch compute a value once; another launch, and a single process, compute their own."""

import errno
import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from kebyt5_xm.model.runs import digest, launch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    return tmp_path / f"kebyt5-xm-{os.getuid()}"


def test_one_rank_computes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def compute() -> str:
        calls.append("")
        return f"value {len(calls)}"

    assert [launch.once_per_machine("a", compute) for _ in range(3)] == ["value 1"] * 3
    assert launch.once_per_machine("b", compute) == "value 2"
    monkeypatch.setenv("MASTER_PORT", "29501")  # another launch
    assert launch.once_per_machine("a", compute) == "value 3"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert [launch.once_per_machine("a", compute) for _ in range(2)] == ["value 4", "value 5"]


def test_a_value_that_a_kill_cut_short_is_computed_again(folder: Path) -> None:
    assert launch.once_per_machine("a", lambda: "whole") == "whole"
    (file,) = folder.iterdir()
    file.write_text("who")
    assert [launch.once_per_machine("a", lambda: "whole") for _ in range(2)] == ["whole", "whole"]
    os.utime(file, (0, 0))
    launch.once_per_machine("b", lambda: "of a later launch")
    assert not file.exists()


def test_a_folder_that_others_can_write_to_is_not_used(folder: Path) -> None:
    launch.once_per_machine("a", lambda: "1")
    folder.chmod(0o777)
    assert launch.once_per_machine("a", lambda: "2") == "2"


def test_each_rank_computes_if_the_disk_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fcntl, "flock", full)
    calls: list[str] = []
    assert [launch.once_per_machine("a", lambda: calls.append("") or "value") for _ in range(2)] == [
        "value"
    ] * 2
    assert len(calls) == 2


def test_a_checkpoint_is_hashed_by_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "a.ckpt", []
    path.write_bytes(b"weights")
    digest.digest_path(path).write_text(digest.file_digest(path))
    hashed = digest.file_digest
    monkeypatch.setattr(digest, "file_digest", lambda file: read.append(file) or hashed(file))
    for _ in range(2):  # as two processes, which share no memory
        digest._digest_at.cache_clear()
        assert not digest.is_damaged(path)
    assert read == [path]
    path.write_bytes(b"damaged")
    os.utime(path, ns=(1, 1))
    assert digest.is_damaged(path)
