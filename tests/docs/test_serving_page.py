"""Runs the Python and the commands of docs/serving.md in order, against a server that is really started."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest
from tiny_model import tiny_model, write_files

pytest.importorskip("openai")
pytest.importorskip("fastapi")

PAGE = (pages.ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.slow
def test_the_code_and_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model().save_pretrained(tmp_path / "runs" / "photos")
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(pages.ROOT))
    servers: list[subprocess.Popen[str]] = []
    names: dict[str, object] = {}
    address, answers = ADDRESS, 0
    try:
        for kind, text in pages.blocks(PAGE):
            if kind == "python":
                exec(compile(text.replace(ADDRESS, address), "docs/serving.md", "exec"), names)
                continue
            for command in text.splitlines():
                match shlex.split(command):
                    case ["pip", "install", "kebyt5-xm[serve]"]:
                        pass
                    case ["kebyt5-xm", "serve", *words]:
                        words = [sys.executable, "-m", "kebyt5_xm", "serve", *words, "--port", "0"]
                        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
                        servers.append(server)
                        assert server.stdout is not None
                        found = re.search(r"http://\S+:\d+", server.stdout.readline())
                        assert found
                        address = found[0]
                    case ["curl", *words]:
                        if shutil.which("curl"):
                            called = [word.replace(ADDRESS, address) for word in words]
                            done = subprocess.run(
                                ["curl", *called], capture_output=True, text=True, check=True
                            )
                            answers += done.stdout.count('"answers"')
                    case ["docker", "build", "-f", file, "--target", target, *_]:
                        assert f" AS {target}\n" in (pages.ROOT / file).read_text(encoding="utf-8")
                    case ["docker", "run", *words]:
                        mounts = {word.split(":")[1] for word in words if word.endswith(":ro")}
                        assert mounts == {"/model", "/run/secrets/kebyt5_xm_token"}
                    case ["openssl", *_]:
                        Path("token").write_text("0123456789abcdef" * 4)
                    case _:
                        pytest.fail(f"no test knows how to run: {command}")
    finally:
        for server in servers:
            server.terminate()
            assert server.wait(120) == 0
            assert server.stdout is not None
            server.stdout.close()
        if client := names.get("client"):
            client.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(servers) == 2
    assert answers in (0, 2)
