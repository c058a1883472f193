"""`kebyt5-xm serve` refuses what it cannot use before it reads a model."""

import socket

import pytest

from kebyt5_xm.commands import cli
from kebyt5_xm.errors import UserError

pytest.importorskip("fastapi")


@pytest.fixture(autouse=True)
def no_token(monkeypatch) -> None:
    monkeypatch.delenv("KEBYT5_XM_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "found --host 0.0.0.0 without a token"),
        (["--host", "::"], "without a token"),
        (["--token-file", "none"], "cannot read the token file 'none'"),
        (["--transcription-prompt", "ko: "], "expected {audio} once"),
        (["--transcription-prompt", "{audio}{audio}"], "expected {audio} once"),
        (["--max-requests", "0"], "found max_requests=0, expected a number above 0"),
        (["--max-seconds", "inf"], "found max_seconds=inf"),
        (["--max-seconds", "nan"], "found max_seconds=nan"),
        (["--port", "99999"], "cannot listen at 127.0.0.1, port 99999"),
        (
            ["--host", "no.such.host.invalid", "--token-file", "token"],
            "cannot listen at no.such.host.invalid",
        ),
        (["--dtype", "int8", "--device", "cuda"], "expected a CPU"),
        (["--port", "0"], "none"),
    ],
)
def test_refusals(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("0123456789abcdef")
    with pytest.raises(UserError) as raised:
        cli.run("serve", ["none", *options])
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "token",
    ["", "short", "with a space in the middle", "한국어로 쓴 것도 안 되는 토큰", "0123456789abcde\x7f"],
)
def test_weak_tokens(token, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(UserError, match="expected 16 or more of ASCII"):
        cli.run("serve", ["none", "--token-file", str(tmp_path / "token")])
    monkeypatch.setenv("KEBYT5_XM_TOKEN", token)
    with pytest.raises(UserError, match="expected 16 or more of ASCII"):
        cli.run("serve", ["none"])


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="give another --port"):
            cli.run("serve", ["none", "--port", str(port)])
