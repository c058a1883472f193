"""docker/Dockerfile, without Docker: the linter, rules of our own, and its lines executed one by one."""

import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_model

dockerfile_parse = pytest.importorskip("dockerfile_parse")

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker" / "Dockerfile"
TOKEN = "0123456789abcdef0123"
VENV, MODEL, SECRET = "/opt/kebyt5-xm", "/model", "/run/secrets/kebyt5_xm_token"
IGNORED = ("ARG", "COMMENT", "EXPOSE", "USER")
"""Instructions that are not executed here; `test_rules` reads them."""


def instructions() -> list[tuple[str, str]]:
    """Return the instructions and their values, with lines joined."""
    parser = dockerfile_parse.DockerfileParser(fileobj=io.BytesIO(FILE.read_bytes()))
    return [(entry["instruction"], entry["value"]) for entry in parser.structure]


def values(instruction: str) -> list[str]:
    return [value for name, value in instructions() if name == instruction]


def stages() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield the base, the name and the instructions of each stage."""
    found = instructions()
    starts = [n for n, (name, _) in enumerate(found) if name == "FROM"]
    for start, end in zip(starts, [*starts[1:], len(found)], strict=True):
        base, _, name = re.split(r"\s+(as)\s+", found[start][1], flags=re.IGNORECASE)
        yield base, name, found[start + 1 : end]


def test_the_linter_finds_nothing():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [linter, "--failure-threshold", "style", FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules():
    names = [name for _, name, _ in stages()]
    assert names == ["build", "cpu", "cuda"]
    for base, _, _ in stages():
        assert base in names or re.fullmatch(r"[a-z]+:\d+\.\d+[a-z.\d-]*", base), (
            "a version; no registry's host"
        )
    assert not values("ADD")
    assert not values("SHELL")
    for instruction in ("ENTRYPOINT", "CMD"):
        for value in values(instruction):
            assert isinstance(json.loads(value), list), "exec form: signals arrive"
    (health,) = values("HEALTHCHECK")
    assert isinstance(json.loads(health.partition("CMD")[2]), list)
    (user,) = values("USER")
    assert user.split(":")[0].isdecimal(), "an orchestrator can see that it is not root"
    assert int(user.split(":")[0]) > 0
    settings = " ".join([*values("ENV"), *values("ARG")]).lower()
    assert not re.search("token|secret|passw|credential|api_?key", settings)
    assert "apt" not in " ".join(values("RUN"))
    assert "--no-cache-dir" in values("RUN")[0]


def test_only_what_is_copied_is_sent():
    """Tokens, runs and stores never reach a layer."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {name for words in copies() for name in words[:-1]}
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert "**/__pycache__" in rules


def copies() -> list[list[str]]:
    """Return the words of the COPY instructions that read from the repository."""
    return [words for value in values("COPY") if not (words := value.split())[0].startswith("--from")]


@pytest.mark.slow
def test_its_lines_run_and_the_server_answers(tmp_path: Path) -> None:
    """Every RUN, COPY, ENV, ENTRYPOINT and HEALTHCHECK of the target cpu, in order, below a folder of its own.

    As in Docker: the lines as they stand, in `env -i` with their own ENV alone, with the files that COPY names and no
    others; the package is built, installed and started from there, without the repository. Not as in Docker: the base
    image (this interpreter instead of `python:3.11-slim`), the user, absolute paths (they are put below the folder),
    the port, and the dependencies: pip finds those of this environment by a .pth file and checks them against the
    constraints, so that it downloads setuptools alone.
    """
    folder = tmp_path / "root"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").symlink_to(sys.executable)

    def below(text: str) -> str:
        """Return a line with the absolute paths of the image put below the folder."""
        return re.sub(rf"(?<![\w.-])(?={VENV}|{MODEL}\b|{SECRET}|/src\b|/tmp\b)", str(folder), text)

    pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path), "TORCH_INDEX": ""} | pip
    tiny_model().save_pretrained(Path(below(MODEL)))
    Path(below(SECRET)).parent.mkdir(parents=True)
    Path(below(SECRET)).write_text(TOKEN)
    here, health, entry = folder, [], []
    for _, name, lines in stages():
        if name == "cuda":
            continue
        if name == "cpu":
            environment = {"PATH": f"{tools}:/usr/bin:/bin"}
        for instruction, value in lines:
            if instruction == "WORKDIR":
                here = Path(below(value))
                here.mkdir(parents=True, exist_ok=True)
            elif instruction == "COPY":
                *sources, target = [word for word in value.split() if not word.startswith("--")]
                for source in sources:
                    copy(value, source, below(target) if target.startswith("/") else str(here / target))
            elif instruction == "RUN":
                run_line(below(value), here, environment, Path(below(VENV)))
            elif instruction == "ENV":
                for word in shlex.split(below(value)):
                    key, _, text = word.partition("=")
                    environment[key] = text.replace("$PATH", environment["PATH"])
            elif instruction == "HEALTHCHECK":
                health = json.loads(value.partition("CMD")[2])
            elif instruction == "ENTRYPOINT":
                entry = [below(word) for word in json.loads(value)]
            else:
                assert instruction in IGNORED, f"nothing here executes {instruction}"
    check_server(entry, health, here, environment)


def copy(value: str, source: str, target: str) -> None:
    """Do one COPY; from another stage nothing needs to be copied, as all stages are in one folder."""
    if value.startswith("--from"):
        return
    ignore = ["--exclude=__pycache__"]
    Path(target).mkdir(parents=True, exist_ok=True)
    inside = "." if (ROOT / source).is_dir() else source
    base = ROOT / source if (ROOT / source).is_dir() else ROOT
    packed = subprocess.run(["tar", "-C", base, "-c", *ignore, inside], capture_output=True, check=True)
    subprocess.run(["tar", "-C", target, "-x"], input=packed.stdout, check=True)


def run_line(line: str, here: Path, environment: dict[str, str], venv: Path) -> None:
    """Run a RUN line; after `python -m venv` its environment sees the packages of this one."""
    made, _, rest = line.partition("&&")
    for part in (made, rest):
        done = subprocess.run(
            ["/bin/sh", "-ec", part], cwd=here, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{part}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        if part is made:
            (packages,) = venv.glob("lib/python*/site-packages")
            (packages / "outer.pth").write_text(sysconfig.get_path("purelib"))
    assert "Downloading torch" not in done.stdout
    assert "Successfully installed kebyt5-xm" in done.stdout


def check_server(entry: list[str], health: list[str], here: Path, environment: dict[str, str]) -> None:
    """Start the server; ask the health check and one question; SIGTERM ends it with 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check = [word.replace("8000", str(port)) for word in health]
    code = "import kebyt5_xm; print(kebyt5_xm.__file__)"
    given: dict[str, Any] = {"cwd": here, "env": environment}
    place = subprocess.run(["python", "-c", code], capture_output=True, text=True, check=True, **given).stdout
    assert str(here.parent) in place, "the installed package, not the repository's"
    assert subprocess.run(check, check=False, capture_output=True, **given).returncode != 0, (
        "nothing runs yet"
    )
    with subprocess.Popen(
        [*entry, "--port", str(port)], stdout=subprocess.PIPE, text=True, **given
    ) as server:
        try:
            assert server.stdout is not None
            assert "answers at" in server.stdout.readline()
            subprocess.run(check, check=True, **given)
            body = json.dumps({"segments": "x", "max_new_tokens": 3}).encode()
            fields = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/answer", body, fields)
            with urllib.request.urlopen(request, timeout=120) as response:
                assert json.load(response)["model"] == "model"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=120) as response:
                assert b"<html" in response.read(), "the page is packaged"
            server.terminate()
            assert server.wait(120) == 0
        finally:
            server.kill()
