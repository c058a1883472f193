"""Features of frozen encoders, computed once: the same training without the encoder, and nothing stale."""

import errno
import json
import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
import torch
from PIL import Image
from processes import CONTEXT, train

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.commands import cli
from kebyt5_xm.commands.cache import fill
from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.feature_cache import CacheMiss, FeatureCache, Segment
from kebyt5_xm.data.media.interface import cache_key
from kebyt5_xm.data.media.opening import Excerpt, open_audio
from kebyt5_xm.encoder import AudioHeader
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import encoder_key
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.from_recipes import build_task
from kebyt5_xm.training.recipes import overlay

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse


def recipe(folder: Path, run: str, cache: str | None = "cache", **changes: Any) -> dict[str, Any]:
    """Text, images (grids) and recordings of unequal length, both encoders frozen."""
    contents = tiny_run.recipe(folder, run)
    for added in (
        tiny_media.image_overlay(folder, frozen=True, **changes),
        tiny_media.speech_overlay(folder, frozen=True),
    ):
        contents = overlay(contents, added)
    contents["data"]["num_workers"] = 2
    if cache is not None:
        for modality in contents["model"]["modalities"].values():
            modality["cache"] = str(folder / cache)
    return contents


def write(folder: Path, contents: dict[str, Any]) -> str:
    return tiny_run.write_recipe(folder, "recipe", contents)


def cache(path: str, *options: str) -> None:
    torch.manual_seed(5)  # the stems here have no weights of their own to load; training seeds them likewise
    cli.run("cache", ["-c", path, *options])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_run.write_stores(tmp_path)
    tiny_media.write_media(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_training_with_a_cache_is_training_without_the_encoder(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, cached = recipe(folder, "plain", cache=None), recipe(folder, "cached")
    assert train(["fit", "-c", write(folder, cached)], folder / "log") == [2]
    message = (folder / "log").read_text()
    assert "model.modalities.image.cache: found no features of this encoder" in message
    assert "Traceback" not in message
    assert not (folder / "cached" / "config.yaml").exists()

    cache(write(folder, cached))
    told = capsys.readouterr().out
    assert f"image: {tiny_media.NUM_IMAGES} media added, {tiny_media.NUM_IMAGES} in" in told
    assert f"speech: {tiny_media.NUM_RECORDINGS} media added" in told
    for contents in (plain, cached):
        assert train(["fit", "-c", write(folder, contents)], folder / "log") == [0], (
            folder / "log"
        ).read_text()
    found, expected = (
        {(r["step"], r["metric"]): r["value"] for r in Run(folder / run).metrics() if "loss" in r["metric"]}
        for run in ("cached", "plain")
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert any("val/loss/captions" in metric for _, metric in found)

    cli.run(
        "generate", [str(folder / "cached"), "--prompt", "{image} 설명: ", "--image", str(folder / "1.png")]
    )
    cli.run("export", [str(folder / "cached"), "--out", str(folder / "export")])
    assert (folder / "export" / "adapters" / "image" / "adapter.json").exists()

    Image.new("RGB", (23, 19)).save(folder / "3.png")  # the file has changed: its features are not there
    again = recipe(folder, "again")
    assert train(["fit", "-c", write(folder, again)], folder / "log") == [0]
    skipped = [json.loads(line) for line in (folder / "again" / "skipped.jsonl").read_text().splitlines()]
    assert {Path(row["path"]).name for row in skipped} == {"3.png"}
    assert all("kebyt5-xm cache" in row["cause"] for row in skipped)


def test_what_is_there_is_not_computed_again_and_parts_add_up(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(folder, recipe(folder, "unused"))
    for shard in ("0/3", "2/3", "1/3"):
        cache(path, "--shard", shard, "--batch-size", "3")
    last = capsys.readouterr().out.splitlines()[-2]
    assert f"{tiny_media.NUM_IMAGES} in " in last
    cache(path)
    assert "image: 0 media added" in capsys.readouterr().out
    (key,) = {p.parent for p in (folder / "cache").glob("*/cache.json") if "Patch" in p.read_text()}
    assert len(list(key.glob("*.features"))) > 1


def test_features_are_those_of_the_encoder_alone(folder: Path) -> None:
    cache(write(folder, recipe(folder, "unused", image_size=[8, 16])))
    torch.manual_seed(5)
    from kebyt5_xm.data.media.feature_cache import media_key
    from kebyt5_xm.data.media.opening import open_image

    encoder = PatchEncoder(image_size=(8, 16), out_dim=8, frozen=True)
    found = FeatureCache(folder / "cache" / encoder_key(encoder)).get(
        media_key((folder / "2.png").read_bytes())
    )
    prepared = encoder.preprocessor().prepare(open_image(folder / "2.png"))
    expected = encoder(prepared[None], torch.tensor([len(prepared)])).features[0]
    assert found is not None
    assert found.shape == (1, 2, 8)
    torch.testing.assert_close(found.flatten(0, 1), expected)


def test_excerpts_of_one_recording_have_features_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [(0.0, 0.15), (0.15, 0.15), (0.1, None), (0.15, 0.15)]
    rows = [{"recording": "10.wav", "at": at, "lasts": lasts, "transcript": "a"} for at, lasts in times]
    tiny_media.write_manifest(folder / "speech.jsonl", rows)
    contents = recipe(folder, "unused")
    contents["data"]["sources"]["speech"]["init_args"] |= {"offset": "at", "duration": "lasts"}
    cache(write(folder, contents))
    assert "speech: 3 media added" in capsys.readouterr().out
    encoder = LogMelEncoder(out_dim=12, sample_rate=tiny_media.SAMPLE_RATE, num_mels=17, frozen=True)
    (address,) = {p.parent for p in (folder / "cache").glob("*/cache.json") if "LogMel" in p.read_text()}
    waveform, rate = open_audio(folder / "10.wav")
    for at, lasts in times:
        found = FeatureCache(address).get(cache_key(Excerpt(folder / "10.wav", at, lasts)))
        stop = len(waveform) if lasts is None else round((at + lasts) * rate)
        size = encoder.preprocessor().size(AudioHeader(stop - round(at * rate), rate))
        assert found is not None
        assert len(found) == size[0]


def test_the_address_knows_weights_settings_and_preprocessing() -> None:
    def key(**changes: Any) -> str:
        torch.manual_seed(changes.pop("seed", 1))
        return encoder_key(PatchEncoder(**{"image_size": 16, "out_dim": 8, "frozen": True, **changes}))

    keys = {key(), key(seed=2), key(image_size=24), key(patch_size=4), key(keep_aspect_ratio=True)}
    assert len(keys) == 5
    assert key() in keys
    assert encoder_key(LogMelEncoder(out_dim=8)) not in keys


def test_bad_media_are_left_out_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:61])
    cache(write(folder, recipe(folder, "unused")))
    told = capsys.readouterr().out.splitlines()[-2]
    assert f"image: {tiny_media.NUM_IMAGES - 1} media added" in told
    assert "1 left out: cannot use" in told
    assert "5.png" in told


def test_a_medium_counts_once_however_many_rows_refer_to_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = (folder / "images.jsonl").read_text()
    path = write(folder, recipe(folder, "unused"))
    cache(path, "--max-gb", "1")
    size = max(sum(p.stat().st_size for p in k.glob("*.features")) for k in (folder / "cache").iterdir())
    (folder / "images.jsonl").write_text(images * 3)
    path = write(folder, recipe(folder, "unused", "again"))
    cache(path, "--max-gb", str(1.5 * size / 1e9))
    assert f"image: {tiny_media.NUM_IMAGES} media added" in capsys.readouterr().out


def test_what_a_cache_lacks_is_skipped_and_counted_with_its_cause(folder: Path) -> None:
    """A broken image, an image that has changed, and one in a row of bytes: no run ends, no message holds a file."""
    broken = (folder / "5.png").read_bytes()[:-61]
    (folder / "5.png").write_bytes(broken)
    path = write(folder, recipe(folder, "unused"))
    cache(path)
    Image.new("RGB", (19, 23), "teal").save(folder / "7.png")
    torch.manual_seed(5)
    task, _ = build_task([path], random_weights=False)
    interface = task.interfaces(read_caches=True)["image"]
    plain = task.interfaces(read_caches=False)["image"]
    for readable in (str(folder / "5.png"), broken):
        with pytest.raises(MediaError) as expected:
            plain.load(readable)
        with pytest.raises(MediaError) as found:
            interface.load(readable)
        assert (found.value.path, found.value.cause) == (expected.value.path, expected.value.cause)
    changed = (folder / "7.png").read_bytes()
    for readable, name in (
        (str(folder / "7.png"), str(folder / "7.png")),
        (changed, f"<{len(changed)} bytes>"),
    ):
        with pytest.raises(CacheMiss, match="run `kebyt5-xm cache`") as caught:
            interface.load(readable)
        assert caught.value.path == name


def fill_little(path: str, log: str, limit: int) -> None:
    """Fill the caches in a process whose segments may be no longer than `limit` bytes."""
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Little(Segment):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, no_limit[1]))

    fill.Segment = Little
    try:
        cache(path)
    except UserError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
        Path(log).write_text(str(error))


@pytest.mark.slow
def test_a_full_disk_leaves_whole_segments_and_the_next_filling_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder, recipe(folder, "unused"))
    process = CONTEXT.Process(target=fill_little, args=(path, str(folder / "log"), 997))
    process.start()
    process.join(240)
    assert (process.exitcode, (folder / "log").exists()) == (0, True)
    assert re.match(
        r"cannot write features to .*: File too large; .* run the same", (folder / "log").read_text()
    )
    assert not list(folder.glob("cache/*/*.features")), "the first segment was not finished"

    fsync, left = os.fsync, 4

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(fill, "SEGMENT_BYTES", 0)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write features to .*No space left on device; what is there"):
        cache(path, "--batch-size", "3")
    monkeypatch.undo()
    (key,) = {p.parent for p in (folder / "cache").glob("*/cache.json")}
    assert len(FeatureCache(key)) == 3 * 2, "two segments are synced, and their indexes"
    assert len(list(key.glob("*.features"))) == len(list(key.glob("*.index.npy"))) == 2
    capsys.readouterr()
    cache(path)
    assert f"image: {tiny_media.NUM_IMAGES - 6} media added" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"frozen": False}, [], "PatchEncoder trains; set `frozen: true`"),
        ({}, ["--max-gb", "1e-7"], "more than --max-gb 1e-07; raise it"),
        ({}, ["--shard", "3/3"], "found --shard 3/3, expected I/N"),
        ({}, ["--batch-size", "0"], "found --batch-size 0"),
        ({}, ["--device", "cuda:97"], "cannot compute on 'cuda:97'.*expected cpu"),
    ],
)
def test_what_cannot_be_cached_is_refused(folder: Path, change: dict, options: list[str], words: str) -> None:
    contents = recipe(folder, "unused")
    contents["model"]["modalities"]["image"]["encoder"]["init_args"] |= change
    with pytest.raises(UserError, match=words):
        cache(write(folder, contents), *options)
    assert not list(folder.glob("cache/*/*.features"))


def test_no_cache_in_the_recipe_is_said(folder: Path) -> None:
    with pytest.raises(UserError, match="no modality has a cache"):
        cache(write(folder, recipe(folder, "unused", cache=None)))


def test_damaged_segments_are_refused_with_their_names(tmp_path: Path) -> None:
    def add(*keys: bytes) -> Path:
        segment = Segment(tmp_path, {"encoder": "x", "out_dim": 3, "dtype": "bfloat16"})
        for key in keys:
            segment.add(key, torch.full((5, 3), float(key[0]), dtype=torch.bfloat16), None)
        segment.finish()
        return segment.path

    first = add(b"\0" * 16, b"a" * 15 + b"\0")
    unfinished = Segment(tmp_path, {})
    unfinished.add(b"u" * 16, torch.zeros(2, 3), None)
    reader = FeatureCache(tmp_path)
    assert len(reader) == 2
    found = reader.get(b"a" * 15 + b"\0")
    assert found is not None
    assert found.dtype == torch.bfloat16
    assert (found == 97.0).all()
    assert reader.get(b"b" * 16) is None
    assert b"u" * 16 not in reader
    unfinished.discard()
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{first.name}' has 59 bytes, unlike its index"):
        FeatureCache(tmp_path).check()
    (tmp_path / "cache.json").write_text(json.dumps({})[:1])
    with pytest.raises(UserError, match="is damaged"):
        FeatureCache(tmp_path).check()
