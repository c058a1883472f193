"""What the page learns of a model, its examples and headers, and its files: texts in both languages, colours."""

import json
import re
from itertools import pairwise
from typing import Any

import paged
import pytest
import serving
from tiny_model import tiny_model

from kebyt5_xm.serving import run_examples
from kebyt5_xm.serving.page import STATIC
from kebyt5_xm.serving.page_content import PageContent
from kebyt5_xm.serving.run_examples import collect_content

pytest.importorskip("fastapi")

DENOISING = {"sentinels": "descending"}
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def model():
    return tiny_model(denoising=DENOISING)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return paged.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def content(run, model):
    return collect_content(run, model.processor.interfaces)


def describe(**settings: Any) -> dict[str, Any]:
    with serving.client(**settings) as client:
        response = client.get("/v1/page")
        assert response.status_code == 200
        return response.json()


def test_the_prompts_are_those_of_the_run(content):
    prompts = {prompt.name: prompt for prompt in content.prompts}
    assert list(prompts) == ["captions", "speech"]
    image, text = prompts["captions"].model_dump()["parts"]
    assert image == {"type": "image", "modality": "image"}
    assert text == {"type": "text", "text": " 설명: "}


def test_examples_are_held_out_rows_with_their_files(content, run):
    folder = run.path.parent
    rows = [json.loads(line) for line in (folder / "speech.jsonl").read_text("utf-8").splitlines()]
    wanted = {(folder / row["recording"]).read_bytes(): row["transcript"] for row in rows}
    speech = [example for example in content.examples if content.prompts[example.prompt].name == "speech"]
    assert 1 < len(speech) <= run_examples.EXAMPLES_PER_PROMPT
    for example in speech:
        assert example.target == wanted[content.files[example.files[0]]]
    assert len(content.gaps) == 2  # one of each store
    for gap in content.gaps:
        assert len(gap.pieces) == len(gap.spans) + 1
        assert all(gap.spans)


def test_fields_and_labels_are_told(tmp_path, model):
    lines = [{"question": f"물음 {n}", "language": ["ko", "en"][n % 2], "answer": "개"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = str(tmp_path / "rows.jsonl")
    init_args = {
        "path": path,
        "validation": path,
        "prompt": "{question} {language}: {{a}}",
        "target": "{answer}",
        "labels": {"개": "개", "새": "새"},
    }
    source = {"class_path": "kebyt5_xm.data.Manifest", "init_args": init_args}
    content = collect(tmp_path, {"kinds": source}, model)
    (prompt,) = content.prompts
    assert [part.model_dump() for part in prompt.parts] == [
        {"type": "field", "name": "question", "values": []},  # too many to choose from
        {"type": "text", "text": " "},
        {"type": "field", "name": "language", "values": ["ko", "en"]},
        {"type": "text", "text": ": {a}"},
    ]
    assert prompt.labels == ["개", "새"]
    assert content.examples[0].fields["question"].startswith("물음 ")


def collect(folder, sources: dict[str, Any], model) -> PageContent:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(json.dumps({"data": {"sources": sources}}))
    return collect_content(paged.Run(run), model.processor.interfaces)


def test_a_prompt_stays_where_its_rows_are_gone(tmp_path, model, run, monkeypatch):
    sources = run.config["data"]["sources"]
    gone = json.loads(json.dumps(sources).replace("images.jsonl", "gone.jsonl"))
    content = collect(tmp_path, gone, model)
    assert [prompt.name for prompt in content.prompts] == ["captions", "speech"]
    assert {example.prompt for example in content.examples} == {1}
    foreign = {"captions": sources["captions"] | {"class_path": "somewhere.else.Manifest"}}
    assert collect(tmp_path, foreign, model).examples == []
    other = {"captions": {"init_args": {"prompt": "{x:depth} {", "target": ""}}, "odd": None, "none": {}}
    assert collect(tmp_path, other, model).prompts == []
    monkeypatch.setattr(run_examples, "MAX_FILE_BYTES", 10)
    assert collect(tmp_path, sources, model).examples == []


def test_files_of_examples_come_from_a_fixed_list(model, content):
    with serving.client(model, content=content) as client:
        page = client.get("/v1/page").json()
        assert page["model"] == "tiny"
        assert page["modalities"] == {"image": "image", "speech": "audio"}
        for example in page["examples"]:
            for number in example["files"]:
                response = client.get(f"/v1/page/files/{number}")
                assert response.content == content.files[number]
                assert response.headers["x-content-type-options"] == "nosniff"
        for number in (
            len(content.files),
            10**30,
            -1,
            "x",
            "..%2f..%2fpyproject.toml",
            "1/../../../etc/passwd",
        ):
            response = client.get(f"/v1/page/files/{number}")
            assert response.status_code in (400, 404)
            assert "message" in response.json()["error"]


def test_a_model_without_a_run_has_prompts_of_its_modalities(model):
    page = describe(model=model, prompt="{audio} ko: ")
    image, speech = page["prompts"]
    assert image["parts"] == [{"type": "image", "modality": "image"}]
    assert speech["parts"] == [{"type": "audio", "modality": "speech"}, {"type": "text", "text": " ko: "}]
    assert page["examples"] == []
    assert page["gaps"] == []
    assert page["limits"]["max_gaps"] == 11
    assert describe(model=tiny_model())["gaps"] is None
    assert [prompt["name"] for prompt in describe(model=tiny_model({}))["prompts"]] == ["text"]
    assert describe(model=tiny_model({}, denoising=DENOISING))["prompts"] == []


def test_the_page_is_open_and_loads_its_own_files_alone(model):
    with serving.client(model, token=TOKEN) as client:
        for path in ("/", "/static/page.js", "/static/style.css"):
            response = client.get(path)
            assert response.status_code == 200
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
        for path in ("/v1/page", "/v1/page/files/0"):
            assert client.get(path).status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/page", headers=headers).status_code == 200


# -- the files -------------------------------------------------------------------------------------

HTML = (STATIC / "index.html").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in STATIC.glob("*.js")}


def table(name: str) -> dict[str, str]:
    return dict(re.findall(r'^  (\w+): "((?:[^"\\]|\\.)*)",$', SCRIPTS[name], re.MULTILINE))


def test_both_languages_have_every_text():
    english, korean = table("en.js"), table("ko.js")
    assert english.keys() == korean.keys()
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", korean[key])), key
    used = set(re.findall(r'data-(?:text|label|title|alt)="(\w+)"', HTML))
    code = "".join(text for name, text in SCRIPTS.items() if name not in ("en.js", "ko.js"))
    used |= set(re.findall(r'"([a-zA-Z]+)"', code)) & english.keys()
    assert used == english.keys(), english.keys() - used
    said = re.findall(r'\b(?:text|announce)\("(\w+)"|\bsay\([^"]*?, "(\w+)"|this\.button\("(\w+)"', code)
    assert len(said) > 20
    assert {key for keys in said for key in keys if key} - {"label", "title", "alt"} <= english.keys()


def test_files_are_short_and_name_no_other_host():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 300, path.name
        assert "//" not in re.sub(r"(?m)^\s*//.*|[;{] //.*|, // .*", "", text).replace("https://", "//"), (
            path.name
        )
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", HTML)
    names = {path.name for path in STATIC.iterdir()}
    assert set(re.findall(r'(?:src|href)="static/([^"]+)"', HTML)) <= names
    for text in SCRIPTS.values():
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= names


def colours(style: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--([\w-]+): #(\w{6});", style)
    return {name: tuple(int(code[n : n + 2], 16) / 255 for n in (0, 2, 4)) for name, code in found}


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """WCAG 2.2, "contrast ratio"."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out(scheme):
    light, dark = (
        (STATIC / "style.css").read_text(encoding="utf-8").split("@media (prefers-color-scheme: dark)")
    )
    found = colours(light) if scheme == "light" else colours(dark.split("* {")[0])
    shade = int(re.findall(r"--doubt, 0\) \* (\d+)%", (STATIC / "answer.css").read_text())[0]) / 100
    doubtful = tuple(shade * a + (1 - shade) * b for a, b in zip(found["shade"], found["paper"], strict=True))
    for ink, paper, least in (
        ("ink", "paper", 4.5),
        ("ink", "field", 4.5),
        ("quiet", "paper", 4.5),
        ("quiet", "field", 4.5),
        ("accent", "paper", 4.5),
        ("on-accent", "accent", 4.5),
        ("problem", "field", 4.5),
        ("problem", "paper", 4.5),
        ("edge", "paper", 3),
        ("edge", "field", 3),
    ):
        assert contrast(found[ink], found[paper]) >= least, (ink, paper)
    assert contrast(found["ink"], doubtful) >= 4.5


def test_headings_do_not_skip_levels():
    levels = [int(level) for level in re.findall(r"<h(\d)", HTML.split("<dialog")[0])]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for name in re.findall(r'(?:for|aria-labelledby|aria-describedby)="([\w-]+)"', HTML):
        assert f'id="{name}"' in HTML
