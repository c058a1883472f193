"""The page in headless Chromium: files are given, answers read, gaps marked, and nothing comes from elsewhere."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import paged
import pytest
from tiny_model import tiny_model, write_files

from kebyt5_xm.model.infilling import Gaps

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FAKE_DEVICES = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
TOKEN = "0123456789abcdef"
LONGEST = 40_000
"""Bytes of an answer that takes some ten seconds."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="found no chromium; install it: apt install chromium"),
]


@pytest.fixture(scope="module")
def model():
    return tiny_model(denoising={"sentinels": "descending"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=FAKE_DEVICES)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(model, tmp_path_factory) -> Iterator[str]:
    run = paged.write_run(tmp_path_factory.mktemp("run"))
    with paged.served(model, run, max_new_tokens=LONGEST) as found:
        yield found


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    return write_files(tmp_path)


@contextmanager
def opened(browser: Any, address: str, width: int = 1280, **settings: Any) -> Iterator[Any]:
    """Yield the page; then nothing may have been logged as an error or asked of another host."""
    context = browser.new_context(viewport={"width": width, "height": 800}, **settings)
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on(
        "request", lambda asked: problems.append(asked.url) if _is_elsewhere(asked.url, address) else None
    )
    page.goto(address)
    yield page
    context.close()
    assert problems == []


def _is_elsewhere(url: str, address: str) -> bool:
    return urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).netloc != urlsplit(address).netloc


def start(page: Any) -> None:
    page.wait_for_selector("body[data-ready]")
    page.click("summary")
    page.fill("#longest", "30")


def read_answer(page: Any) -> str:
    page.wait_for_selector("#stop:disabled")
    page.wait_for_selector("#written:not([hidden])")
    assert page.is_hidden("#problem")
    return page.text_content("#written > :first-child")


def ask(page: Any) -> str:
    with page.expect_response("**/v1/answer") as response:
        page.click("#send")
    assert response.value.headers["content-type"].startswith("text/event-stream")
    return read_answer(page)


def is_within(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [360, 1280])
def test_an_image_and_a_recording_are_answered(browser, address, model, files, width):
    image, sound = files
    with opened(browser, address, width, locale="ko-KR") as page:
        start(page)
        assert page.input_value("#prompt") == "{image} 설명: "
        page.set_input_files(".card input", str(image))
        written = ask(page)
        assert written == model.answer([image, " 설명: "], max_new_tokens=30)
        assert page.locator("#looked canvas").count() == 1
        assert is_within(page)

        page.click("label[for=task-1]")
        page.set_input_files(".card input", str(sound))
        page.wait_for_selector(".card canvas")
        page.fill("#prompt", "{speech}a {{b}}\n")
        written = ask(page)
        assert written == model.answer([sound, "a {b}\n"], max_new_tokens=30)
        assert page.locator("#looked canvas").count() == 1
        assert is_within(page)

        page.fill("#prompt", "{speech}{image}")
        page.set_input_files(".card:nth-child(2) input", str(image))
        assert ask(page) == model.answer([sound, image], max_new_tokens=30)
        assert page.locator("#looked canvas").count() == 2


def test_examples_are_answered(browser, address):
    with opened(browser, address, locale="en-US") as page:
        start(page)
        page.wait_for_selector(".example img")
        page.click("#examples li:nth-child(2) button")
        read_answer(page)
        assert "그림" in page.inner_text("#expected strong")
        page.fill("#prompt", "{image} ")
        ask(page)
        assert page.is_hidden("#expected")  # it is the right answer to the example alone


def test_words_tell_where_they_looked(browser, address, model, files):
    image, _ = files
    prompts = (f" {number}:" for number in range(99))
    prompt = next(p for p in prompts if len(model.answer([image, p], max_new_tokens=90).split()) > 2)
    with opened(browser, address, locale="en-US") as page:
        start(page)
        page.fill("#longest", "90")
        page.set_input_files(".card input", str(image))
        page.fill("#prompt", f"{{image}}{prompt}")
        ask(page)
        words, caption = page.locator("#written .word"), page.locator("figcaption")
        assert caption.inner_text().startswith("For the whole answer")
        words.first.focus()
        first = caption.inner_text()
        assert first.startswith("For “")
        page.keyboard.press("ArrowRight")
        second = caption.inner_text()
        assert second.startswith("For “")
        assert second != first
        assert page.evaluate("document.querySelectorAll('#written [tabindex=\"0\"]').length") == 1
        page.keyboard.press("Enter")
        assert words.nth(1).get_attribute("aria-pressed") == "true"
        assert "%" in words.nth(1).get_attribute("aria-label")
        page.keyboard.press("Tab")
        assert caption.inner_text() == second  # it is kept


@pytest.mark.parametrize("width", [360, 1280])
def test_a_gap_is_marked_and_filled(browser, address, model, width):
    with opened(browser, address, width, locale="en-US") as page:
        start(page)
        page.click("label[for=task-2]")
        page.fill("#gap-text", "서울은 수도이다.")
        page.evaluate("document.getElementById('gap-text').setSelectionRange(4, 6)")
        page.keyboard.press("Alt+g")
        assert page.input_value("#gap-text") == "서울은 [[수도]]이다."
        page.click("#mark-gap")
        assert page.input_value("#gap-text") == "서울은 수도이다."
        page.click("#mark-gap")
        page.keyboard.press("Control+Enter")
        expected = model.fill(Gaps(["서울은 ", "이다."]), max_new_tokens=30)
        written = read_answer(page)
        assert written == expected.text.replace(expected.text[4:-3], expected.spans[0].text or "∅")
        assert page.inner_text("#written .hint") == "Before: 수도"
        assert is_within(page)
        page.fill("#gap-text", "no gap")
        page.click("#send")
        assert page.inner_text("#problem").startswith("The text has no gap.")
        page.click("#examples li:first-child button")
        read_answer(page)


def test_the_language_is_the_browsers_and_can_be_changed(browser, address):
    with opened(browser, address, locale="ko-KR", color_scheme="dark") as page:
        start(page)
        assert page.inner_text("#send") == "답하기"
        page.click("#send")
        assert "비어 있습니다" in page.inner_text("#problem")
        page.click("[data-language=en]")
        assert page.inner_text("#send") == "Answer"
        assert page.get_attribute("html", "lang") == "en"
        assert page.get_attribute("[data-language=en]", "aria-pressed") == "true"
        page.reload()
        start(page)
        assert page.inner_text("#send") == "Answer"


def test_an_answer_is_stopped_and_its_place_is_free(browser, address):
    with opened(browser, address, locale="en-US") as page:
        start(page)
        page.fill("#longest", str(LONGEST))
        page.fill("#prompt", "가나다")
        page.click("#send")
        page.wait_for_selector("#written .growing")
        page.keyboard.press("Escape")
        page.wait_for_selector("#stop:disabled")
        assert page.inner_text("#state").startswith(("Stopped", "Ended"))
        page.fill("#longest", "3")
        ask(page)
        while b"kebyt5_xm_requests_in_server 0" not in urlopen(address + "metrics").read():
            pass


def test_errors_of_the_server_are_shown_as_they_are(browser, address, tmp_path):
    bad = tmp_path / "a.png"
    bad.write_bytes(b"no image")
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(address)
    start(page)
    page.set_input_files(".card input", str(bad))
    page.click("#send")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem").startswith("400: part 1 cannot be used")
    page.fill("#longest", "0")
    page.click("#send")
    page.wait_for_selector("#problem:has-text('is no number from 1')")
    page.fill("#longest", "3")
    page.fill("#prompt", "a{imge}")
    page.click("#send")
    page.wait_for_selector("#problem:has-text('{imge}')")
    assert page.get_attribute("#prompt", "aria-invalid") == "true"
    context.close()


def test_camera_and_microphone_give_files(browser, address):
    with opened(browser, address, 360, locale="en-US", permissions=["camera", "microphone"]) as page:
        start(page)
        page.click(".card button:has-text('Camera')")
        page.wait_for_selector("#camera-dialog[open]")
        assert is_within(page)
        page.wait_for_selector("#camera-view")
        page.click("#camera-take")
        page.wait_for_selector(".card img")
        ask(page)
        page.click("label[for=task-1]")
        page.click(".card button:has-text('Record')")
        page.click(".card button:has-text('(1 s)')")
        page.wait_for_selector(".card canvas")
        assert page.inner_text(".card .hint") == "microphone.wav"
        ask(page)


def test_a_token_is_asked_for(browser, model):
    with paged.served(model, token=TOKEN) as address:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token-hint:has-text('does not know')")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        start(page)
        page.fill("#prompt", "a")
        ask(page)
        context.close()
