"""References in rows: URLs and chains of URLs, data: URLs, and names that differ slightly from the file names."""

import base64
import http.server
import io
import json
import os
import tarfile
import threading
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.registry import known_implementations
from PIL import Image

from kebyt5_xm.data.media import address
from kebyt5_xm.data.media.bad_sample import MAX_SHOWN, MediaError
from kebyt5_xm.data.media.opening import RemoteUrl, open_image, read_header, resolve
from kebyt5_xm.encoder import ImageHeader

SIZE = (7, 5)
ALLOW_ALL = {"allow_remote": True, "allow_outside": True}


def make_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE, "teal").save(buffer, "PNG")
    return buffer.getvalue()


# --- addresses


@pytest.mark.parametrize(
    "protocol", sorted({*known_implementations, "FILE", "Local"} - {*address.REMOTE_PROTOCOLS, "data"})
)
def test_url_chains_to_local_files_are_refused(tmp_path: Path, protocol: str) -> None:
    place = f"{tmp_path}/secret.png"
    for url in (
        f"{protocol}://{place}",
        f"{protocol}://::{place}",
        f"{protocol}://secret.png::{place}",
        f"{protocol}://secret.png::file://{place}",
        f"{protocol}::file://{place}",
        f"simplecache::{protocol}://{place}",
        f"simplecache::zip://secret.png::{protocol}://{place}",
        f"https://example.org/a.png::{protocol}://{place}",
        f"{protocol}://a:b@localhost/{place}?protocol=file&fo={place}#::{place}",
        f"zip://{protocol}::{place}",
        f"zip://a.png::../{protocol}://{place}",
    ):
        with pytest.raises(MediaError, match="set allow_outside"):
            resolve(tmp_path, url, allow_remote=True)
        with pytest.raises(MediaError, match="set allow_remote"):
            resolve(tmp_path, url, allow_outside=True)
        found = resolve(tmp_path, url, allow_remote=True, allow_outside=True)
        assert isinstance(found, RemoteUrl)
        assert not found.public


def test_only_archives_and_caches_may_wrap_a_remote_url(tmp_path: Path) -> None:
    for url in (
        "https://example.org/a.png",
        "simplecache::s3://bucket/a.png",
        "zip://b/a.png::simplecache::https://example.org/x.zip?token=a",
        "tar://a.png::hf://datasets/x/y@main/z.tar",
    ):
        assert resolve(tmp_path, url, allow_remote=True) == RemoteUrl(url, public=True)
    assert resolve(tmp_path, "HTTPS://example.org/A.png", True) == RemoteUrl(
        "https://example.org/A.png", True
    )
    for url in ("https://::https://example.org/a", "https://", "reference://a::https://example.org/a.json"):
        with pytest.raises(MediaError, match="set allow_outside"):
            resolve(tmp_path, url, allow_remote=True)


def test_the_name_of_a_remote_url_is_that_of_the_file_read() -> None:
    for url, name in (
        ("https://example.org/a/b.pcm?x=1#y", "example.org/a/b.pcm"),
        ("zip://c.pcm::https://example.org/x.zip", "c.pcm"),
        ("simplecache::s3://bucket/d.pcm", "bucket/d.pcm"),
    ):
        assert RemoteUrl(url).name == name


PRIVATE = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.5.5", "169.254.169.254", "100.64.0.1", "0.0.0.0"]
PRIVATE += ["224.0.0.1", "::1", "::", "fe80::1%eth0", "fc00::1"]
PRIVATE += ["::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1", "::7f00:1"]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("found", [*PRIVATE, *PUBLIC])
def test_public_addresses(found: str) -> None:
    assert address.is_public(found) is (found in PUBLIC)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve a folder on every address of this machine; `/away` redirects to 127.0.0.2."""
    (tmp_path / "a.png").write_bytes(make_png())
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("in/a.png", make_png())
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "a.png")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/away":
                self._send_headers(302, Location=f"http://127.0.0.2:{running.server_port}/a.png")
                return
            path = tmp_path / self.path.strip("/").replace("endless-", "")
            if not path.exists():
                self._send_headers(404)
                return
            content = path.read_bytes()
            first, last = 0, len(content) - 1
            if "endless" in self.path:  # a page generated on the fly has no length
                self._send_headers(200)
            elif wanted := self.headers["Range"]:
                first, last = (int(place) if place else last for place in wanted.split("=")[1].split("-"))
                content = content[first : last + 1]
                content_range = f"bytes {first}-{last}/{path.stat().st_size}"
                self._send_headers(
                    206, **{"Content-Length": str(len(content)), "Content-Range": content_range}
                )
            else:
                self._send_headers(200, **{"Content-Length": str(len(content)), "Accept-Ranges": "bytes"})
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def _send_headers(self, code: int, **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield f"localhost:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_private_addresses_need_allow_outside(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [
        f"http://{server}/a.png",
        f"http://{server}/away",
        f"http://{server.replace('localhost', '127.0.0.1')}/a.png",
    ]
    urls += [f"zip://in/a.png::http://{server}/x.zip", f"tar://a.png::http://{server}/x.tar"]
    urls += [f"simplecache::zip://in/a.png::http://{server}/x.zip", f"simplecache::http://{server}/a.png"]
    for url in urls:
        assert open_image(resolve(tmp_path, url, **ALLOW_ALL)).size == SIZE
        assert read_header(resolve(tmp_path, url, **ALLOW_ALL), "image") == ImageHeader(*SIZE)
        with pytest.raises(MediaError, match=r"the address (127\.0\.0\.1|::1), expected .*set allow_outside"):
            open_image(resolve(tmp_path, url, allow_remote=True))
    monkeypatch.setattr(address, "is_public", lambda found: found == "127.0.0.1")
    assert (
        open_image(resolve(tmp_path, urls[0].replace("localhost", "127.0.0.1"), allow_remote=True)).size
        == SIZE
    )
    with pytest.raises(MediaError, match=r"the address 127\.0\.0\.2, expected"):
        open_image(resolve(tmp_path, urls[1].replace("localhost", "127.0.0.1"), allow_remote=True))
    for url, words in ((f"http://{server}/b.png", "no such file"), ("http://localhost:9/b.png", "onnect")):
        with pytest.raises(MediaError, match=words) as caught:
            open_image(resolve(tmp_path, url, **ALLOW_ALL))
        assert len(str(caught.value).splitlines()) == 1


# --- data: URLs


def test_data_urls_are_decoded(tmp_path: Path) -> None:
    raw = make_png()
    text = base64.b64encode(raw).decode()
    percent = "".join(f"%{byte:02x}" for byte in raw)
    for url in (
        f"data:image/png;base64,{text}",
        f"DATA:;Base64,{text.rstrip('=')}",
        f"data:image/png;charset=x;base64, {text[:40]}\n{text[40:]}",
        f"data:image/png;base64,{text.replace('+', '-').replace('/', '_')}",
        f"data:image/png;base64,{text.replace('+', '%2B').replace('=', '%3D')}",
        f"data:image/png,{percent}",
    ):
        assert resolve(tmp_path, url) == raw
    for url in (
        "data:",
        "data:image/png;base64",
        "data:image/png;base64,",
        f"data:;base64,{text}!",
        "data:;base64,A",
    ):
        with pytest.raises(MediaError, match=r"data: URL"):
            resolve(tmp_path, url)


def test_messages_are_short_and_printable(tmp_path: Path) -> None:
    text = base64.b64encode(np.random.default_rng(3).bytes(50_021)).decode()
    for reference in (
        text,
        f"data:image/png;base64,{text}",
        f"https://example.org/{text}",
        "a/" * 5003,
        "나\n라" * 997,
    ):
        with pytest.raises(MediaError) as caught:
            open_image(resolve(tmp_path, reference))
        error = caught.value
        assert max(len(error.path), len(error.cause)) <= MAX_SHOWN
        assert str(error).isprintable()
        assert len(json.dumps(error.path)) < 7 * MAX_SHOWN
    with pytest.raises(MediaError, match=r"longer than the file system takes; .*data:;base64"):
        open_image(resolve(tmp_path, text))


# --- names


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_is_found_in_another_unicode_form(tmp_path: Path, written: Any, stored: Any) -> None:
    folder = tmp_path / unicodedata.normalize(stored, "사진") / unicodedata.normalize(written, "한글")
    folder.mkdir(parents=True)
    path = folder / unicodedata.normalize(stored, "각 é.png")
    path.write_bytes(make_png())
    reference = unicodedata.normalize(written, "사진/한글/각 é.png")
    assert resolve(tmp_path, reference) == os.path.realpath(path)
    assert open_image(resolve(tmp_path, reference)).size == SIZE
    exact = tmp_path / reference  # an exact match wins over other forms
    exact.parent.mkdir(parents=True)
    exact.write_bytes(b"")
    assert resolve(tmp_path, reference) == os.path.realpath(exact)


def test_another_unicode_form_never_leads_outside(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (tmp_path / "out.png").write_bytes(make_png())
    (root / unicodedata.normalize("NFD", "각.png")).symlink_to("../out.png")
    with pytest.raises(MediaError, match="allow_outside"):
        resolve(root, "각.png")


NASTY = [
    "[a]*?.png",
    " .png",
    "a .png ",
    "a\nb.png",
    "a\\b.png",
    "~.png",
    "-rf.png",
    "'$x`.png",
    "a::b.png",
    "a%20b.png",
]
NASTY += [
    "nul\u200b.png",
    "x" * 251 + ".png",
    "#.png",
    "{a}.png",
    "a\tb.png",
    "https:a.png",
    ".png",
    "각" * 83 + ".png",
]
NASTY += [os.fsdecode(b"\xb0\xa1.png")]


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_are_used_unchanged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(make_png())
    (tmp_path / "[b]").mkdir()
    (tmp_path / "[b]" / name).hardlink_to(tmp_path / name)
    for reference in (name, f"./{name}", f"[b]/{name}", f"[b]//{name}"):
        assert open_image(resolve(tmp_path, reference)).size == SIZE


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("b\\a.png", "did you mean 'b/a.png'"),
        ("b/A.PNG", "did you mean 'a.png'"),
        ("b/a.PNG", "did you mean 'a.png'"),
        ("b/a.png ", "did you mean 'a.png'"),
        ("b/a%2Epng", "did you mean 'a.png'"),
        ("C:\\photos\\a.png", "Windows path"),
        ("b/c.png", "no such file$"),
        ("b/a.png/d.png", "no such file"),
        ("b", "found a folder"),
        ("b/\ud800.png", "half a character"),
        ("dangling.png", "no such file$"),
        ("loop.png", "cannot be opened"),
    ],
)
def test_a_missing_file_is_reported_with_a_suggestion(tmp_path: Path, reference: str, words: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.png").write_bytes(make_png())
    (tmp_path / "dangling.png").symlink_to("b/absent.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(MediaError, match=words):
        open_image(resolve(tmp_path, reference))
