"""`kebyt5-xm serve` as a process: the openai client, bad input, clients that leave, and the end by SIGTERM."""

import json
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serving
from server_process import Server
from tiny_model import tiny_model

from kebyt5_xm.model.cross_modal import CrossModalT5

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")

pytestmark = pytest.mark.slow

LONGEST = 40_000
"""Bytes of an answer that nobody waits for; it would take minutes."""
ENDLESS = {"segments": "안녕", "max_new_tokens": LONGEST, "stop_loops": False, "stream": True}
TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, model) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def server(exported) -> Iterator[Server]:
    prompt = ["--transcription-prompt", r"{audio} {language}:\n"]
    limits = ["--max-requests", "2", "--max-new-tokens", str(LONGEST), "--max-bytes", "1000000"]
    with Server(exported, *prompt, *limits) as started:
        yield started
        assert "Traceback" not in started.stop()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    return serving.write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def client(server) -> Any:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def chat(client: Any, *parts: Any, **arguments: Any) -> Any:
    messages = [{"role": "user", "content": list(parts)}]
    return client.chat.completions.create(
        model="tiny", messages=messages, max_completion_tokens=12, **arguments
    )


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_the_openai_client_chats_with_images_and_recordings(client, model, files):
    image, audio = files
    pictured = {"type": "image_url", "image_url": {"url": serving.data_url(serving.png())}}
    heard = {
        "type": "input_audio",
        "input_audio": {"data": serving.in_base64(serving.wav()), "format": "wav"},
    }
    for parts, segments in (
        ([text("안녕")], ["안녕"]),
        ([pictured, text(" ko:")], [image, " ko:"]),
        ([heard, text(" ko:"), pictured], [audio, " ko:", image]),
    ):
        expected = model.answer(segments, max_new_tokens=12)
        found = chat(client, *parts)
        assert found.choices[0].message.content == expected
        assert found.usage.completion_tokens == len(expected.encode())
        *pieces, last = chat(client, *parts, stream=True, stream_options={"include_usage": True})
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == expected
        assert pieces[-1].choices[0].finish_reason == found.choices[0].finish_reason
        assert last.usage == found.usage
    two = chat(client, text("안녕"), n=2, temperature=1.0, seed=3, presence_penalty=0, user="someone")
    assert len(two.choices) == 2


def test_messages_are_joined_by_line_ends(client, model):
    messages = [{"role": "system", "content": "하나"}, {"role": "user", "content": "둘"}]
    found = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12)
    assert found.choices[0].message.content == model.answer("하나\n둘", max_new_tokens=12)


def test_the_openai_client_transcribes(client, model, files):
    _, audio = files
    expected = model.answer([audio, " ko:\n"], max_new_tokens=LONGEST)
    with audio.open("rb") as file:
        found = client.audio.transcriptions.create(model="tiny", file=file, language="ko")
    assert found.text == expected
    given = {"model": "tiny", "file": ("b.wav", serving.wav()), "language": "ko"}
    assert client.audio.transcriptions.create(**given, response_format="text") == expected
    *pieces, last = client.audio.transcriptions.create(**given, stream=True)
    assert "".join(piece.delta for piece in pieces) == last.text == expected
    assert last.type == "transcript.text.done"
    own = client.audio.transcriptions.create(model="tiny", file=("b.wav", serving.wav()), prompt=" en: ")
    assert own.text == model.answer([audio, " en: "], max_new_tokens=LONGEST)


def test_the_openai_client_sees_the_model(client):
    assert [entry.id for entry in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").modalities == {"image": "image", "speech": "audio"}


def test_what_openai_has_and_this_model_has_not_is_refused(client):
    wav = ("b.wav", serving.wav())
    tool = {"type": "function", "function": {"name": "f"}}
    remote = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    transcribe = client.audio.transcriptions.create
    for ask, words in (
        (lambda: chat(client, text("x"), tools=[tool]), "tools: found an argument that is unknown here"),
        (lambda: chat(client, text("x"), logprobs=True), "logprobs"),
        (lambda: chat(client, text("x"), presence_penalty=1.0), "presence_penalty"),
        (lambda: chat(client, remote), "the server fetches nothing"),
        (lambda: transcribe(model="tiny", file=wav), "language: found no language"),
        (
            lambda: transcribe(model="tiny", file=wav, language="ko", response_format="diarized_json"),
            "response_format",
        ),
        (
            lambda: transcribe(model="tiny", file=wav, language="ko", chunking_strategy="auto"),
            "chunking_strategy",
        ),
        (lambda: transcribe(model="tiny", file=("b.wav", b""), language="ko"), "empty file"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            ask()
    with pytest.raises(openai.NotFoundError, match="expected 'tiny'"):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"segments": [{"type": "image", "data": serving.in_base64(serving.bomb())}]}, 413, "pixels"),
        ({"segments": [{"type": "audio", "data": serving.in_base64(serving.hour_of_silence())}]}, 413, "3600.0 s"),
        (b" " * 1_000_001, 413, "more than 1000000 bytes"),
        ({"segments": "x" * 5000}, 413, "at most 4096"),
        ({"segments": []}, 400, "empty request"),
        (b"", 400, "empty body"),
        (b"{", 400, "no JSON"),
        (b"[" * 100_000, 400, ""),
    ],
)  # fmt: skip
def test_bad_input_leaves_the_server_alive(server, body, status, words):
    found, _, error = server.ask("/v1/answer", body)
    assert (found, words in error["error"]["message"]) == (status, True), error
    assert server.ask("/health")[2] == {"status": "ok"}
    assert server.ask("/v1/answer", {"segments": "x", "max_new_tokens": 3})[0] == 200


def test_a_full_server_says_so_and_clients_that_leave_free_their_places(server):
    running, response = server.begin(ENDLESS)
    waiting = server.send(ENDLESS)
    server.wait_for_requests(2)
    status, headers, error = server.ask("/v1/answer", {"segments": "x"})
    assert status == 429
    assert int(headers["Retry-After"]) >= 1
    assert error["error"]["code"] == "queue_full"
    for left in (waiting, response, running):
        left.close()
    server.wait_for_requests(0)
    silent = server.send(ENDLESS | {"stream": False})
    server.wait_for_requests(1)
    silent.close()
    server.wait_for_requests(0)
    last = server.send({"segments": "x", "max_new_tokens": 3})  # waits for no answer to those who left
    server.wait_until("an answer", lambda: select.select([last.sock], [], [], 0)[0])
    assert last.getresponse().status == 200
    last.close()
    assert server.count("hang_ups_total") == 3


def test_sigterm_finishes_what_runs(exported):
    with Server(exported, "--max-new-tokens", "5000") as server:
        connection, response = server.begin(ENDLESS | {"max_new_tokens": 3000})
        server.process.send_signal(signal.SIGTERM)
        events = [line for line in response.read().decode().splitlines() if line]
        connection.close()
        assert events[-1] == "data: [DONE]"
        last = json.loads(events[-2].removeprefix("data: "))
        assert last["answers"][0]["finish_reason"] == "length"
        errors = server.wait()
        assert server.process.returncode == 0, errors[-2000:]
        assert "Traceback" not in errors
        gone = server.connect()
        with pytest.raises(ConnectionRefusedError):
            gone.connect()


def test_a_token_is_needed_where_others_can_ask(exported, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with Server(exported, "--host", "0.0.0.0", "--token-file", str(tmp_path / "token")) as server:
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")
        body = {"segments": "x", "max_new_tokens": 3}
        assert server.ask("/v1/answer", body)[0] == 401
        assert server.ask("/v1/answer", body, Authorization="Bearer wrong")[0] == 401
        assert server.ask("/v1/answer", body, Authorization=f"Bearer {TOKEN}")[0] == 200
        stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        assert TOKEN not in server.stop()
