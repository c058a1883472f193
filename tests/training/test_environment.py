"""Large tensors are put into huge pages, threads do not spin, and the user's own variables stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kebyt5_xm.training import environment

ROOT = Path(__file__).parents[2]

MAPPINGS = """
from kebyt5_xm.training import environment
environment.set_defaults()
import torch
large = torch.ones(1 << 23)
print(environment.describe())
print(sum(line.startswith("VmFlags") and " hg" in line for line in open("/proc/self/smaps")))
"""
"""Prints the number of mappings for which the process has asked for huge pages (proc_pid_smaps(5): `hg`)."""


def run(**variables: str) -> tuple[str, int]:
    """Return the description, and how many mappings want huge pages, of a new process with these variables."""
    unset = {environment.HUGE_PAGES, environment.SPINNING, environment.WAITING}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", MAPPINGS],
        env={**inherited, **variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    *_, line, count = done.stdout.splitlines()
    return line, int(count)


@pytest.mark.slow
@pytest.mark.skipif(not environment.has_huge_pages(), reason="the kernel gives no huge pages")
def test_large_tensors_are_in_huge_pages_unless_the_user_says_otherwise() -> None:
    line, count = run()
    assert count
    assert "THP_MEM_ALLOC_ENABLE=1, GOMP_SPINCOUNT=20000" in line
    line, count = run(THP_MEM_ALLOC_ENABLE="0", OMP_WAIT_POLICY="ACTIVE")
    assert not count
    assert "THP_MEM_ALLOC_ENABLE=0, OMP_WAIT_POLICY=ACTIVE" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("always [madvise] never\n", True),
        ("[always] madvise never\n", True),
        ("always madvise [never]\n", False),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the setting")
def test_the_kernel_is_asked_only_for_pages_that_it_gives(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "enabled").write_text(text)
    assert environment.has_huge_pages(tmp_path / "enabled") is expected
    assert not environment.has_huge_pages(tmp_path / "absent")


def test_nothing_is_set_that_the_system_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_huge_pages", lambda: False)
    monkeypatch.setattr(environment.os, "environ", found := {})
    environment.set_defaults()
    assert found == {"GOMP_SPINCOUNT": "20000"}


def test_the_users_way_of_waiting_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_huge_pages", lambda: False)
    monkeypatch.setattr(environment.os, "environ", found := {"OMP_WAIT_POLICY": "ACTIVE"})
    environment.set_defaults()
    assert found == {"OMP_WAIT_POLICY": "ACTIVE"}
