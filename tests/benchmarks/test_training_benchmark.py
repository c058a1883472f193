"""The training benchmark at toy sizes: all train on the same texts, each in its environment."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import readme, training, training_ours, training_peer
from benchmarks.training_data import Sizes, read_examples
from benchmarks.turns import Contestant, is_setting, plain_environment, wait_until_ready

TOY = Sizes(
    {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2},
    shortest=3,
    longest=47,
    target=5,
    num_texts=512,
    rows=4,
    stride=4,
    row_length=64,
    rows_of_micro_batch=2,
    micro_batches=2,
    demo_steps=2,
    corpus_bytes=20_000,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training")
    TOY.write(path)
    return path


def test_batches_of_similar_length_are_a_fair_sample_of_all_texts(folder: Path):
    lengths = np.load(folder / "lengths.npy")
    assert lengths.shape == (8, 4)
    assert (lengths.max(axis=1) - lengths.min(axis=1) <= 3).all()  # similar within a batch
    real = Sizes({}).draw_lengths()
    assert np.log(real).mean() == pytest.approx(np.log(30 * 1500) / 2, rel=0.02)  # log-uniform; six batches


def test_both_sides_train_on_the_same_texts(folder: Path):
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    examples = read_examples(folder, TOY.target)
    ours = [(len(row["text"]) + 1, len(row["answer"]) + 1) for row in rows]
    assert ours == [(len(example["input_ids"]), len(example["labels"])) for example in examples]
    loader = training_peer.mixed_loader(examples, TOY.rows, shuffle=True)
    ids = sum(training_peer.num_ids(batch) for batch in loader)
    assert ids == sum(map(sum, ours))


def test_the_plain_environment_has_no_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    assert not [name for name in plain_environment() if is_setting(name)]


def test_ratios_are_to_the_best_peers():
    rates = {
        "ours_by_length": 30.0,
        "ours_packed": 20.0,
        "transformers_eager_random": 2.0,
        "transformers_eager_grouped": 10.0,
        "transformers_sdpa_grouped": 12.0,
        "transformers_eager_grouped_tuned": 15.0,
        "transformers_sdpa_grouped_tuned": 14.0,
    }
    figures = training.summarize({name: {"useful_bytes_per_s": rate} for name, rate in rates.items()})
    assert figures["best_of_ours"] == "ours_by_length"
    assert figures["ratio_ours_to_best_peer"] == 30 / 12
    assert figures["ratio_ours_to_best_tuned_peer"] == 30 / 15


@pytest.mark.slow
def test_contestants_train_in_turns(folder: Path):
    commands = {
        "packed": training_ours.command(folder, "packed"),
        "demo": training_ours.command(folder, "demo"),
        "grouped": training_peer.command(folder, "sdpa", "grouped"),
        "peer's demo": training_peer.command(folder, "eager", "demo"),
    }
    environment = plain_environment() | {"OMP_NUM_THREADS": "1"}
    contestants = {name: Contestant(command, environment) for name, command in commands.items()}
    try:
        wait_until_ready(list(contestants.values()))
        for name, contestant in contestants.items():
            assert contestant.settings["OMP_NUM_THREADS"] == "1", name
            contestant.turn()
            assert contestant.best["useful_bytes_per_s"] > 0, name
            assert contestant.best["peak_resident_mb"] > 100, name
    finally:
        for contestant in contestants.values():
            contestant.close()


@pytest.mark.slow
def test_a_contestant_that_fails_says_why():
    contestant = Contestant(["-c", "raise SystemExit('no such attention')"], plain_environment())
    with pytest.raises(RuntimeError, match="no such attention"):
        contestant.wait_until_ready()
    contestant.close()


@pytest.mark.parametrize("name", readme.PAGES)
def test_old_figures_of_a_page_are_replaced(name: str):
    new = readme.updated(name, (readme.ROOT / name).read_text(encoding="utf-8"))
    language = readme.LANGUAGES.get(name)
    row = readme.packing() if language is None else readme.ROWS[-1].text(language)
    old = new.replace(row, row.replace("%", "7%") if language is None else "| old | 97 MB | | |")
    assert old != new
    assert readme.updated(name, old) == new
