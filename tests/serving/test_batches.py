"""How the worker makes batches of waiting jobs, and what happens when one fails."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from tiny_model import tiny_model

pytest.importorskip("fastapi")

from kebyt5_xm.serving import worker
from kebyt5_xm.serving.api_errors import ApiError
from kebyt5_xm.serving.jobs import Job, Result, Search
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.serving.metrics import Metrics
from kebyt5_xm.serving.service import finish
from kebyt5_xm.serving.worker import Worker

GREEDY = Search(max_new_tokens=12)
TEXTS = ["안녕", "x", "좋은 아침"]


class Counting(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def observe_batch(self, size: int) -> None:
        super().observe_batch(size)
        self.sizes.append(size)


def answer(
    model: Any,
    searches: Sequence[tuple[str, Search]],
    cancelled: Sequence[int] = (),
    details: bool = False,
    **limits: Any,
) -> tuple[list[Any], list[int]]:
    """Return the results, or errors, of jobs that all wait before the worker starts, and the sizes of its batches."""

    async def work() -> list[Any]:
        answering = Worker(model, ServingLimits(**limits), metrics)
        jobs = [
            Job(answering.processor.example([text]), search, details, time.monotonic(), 60.0)
            for text, search in searches
        ]
        for number, job in enumerate(jobs):
            answering.waiting.put(job)
            if number in cancelled:
                job.cancel()
        answering.start()
        wanted = [finish(job) for number, job in enumerate(jobs) if number not in cancelled]
        found = await asyncio.gather(*wanted, return_exceptions=True)
        answering.stop()
        assert not answering.is_alive
        return found

    metrics = Counting()
    return asyncio.run(work()), metrics.sizes


def first_texts(results: list[Result]) -> list[str]:
    return [result.answers[0]["text"] for result in results]


def test_waiting_jobs_of_one_search_are_one_batch_with_the_answers_of_single_ones():
    model = tiny_model()
    for details in (False, True):
        results, sizes = answer(model, [(text, GREEDY) for text in TEXTS], details=details)
        assert first_texts(results) == [model.answer(text, max_new_tokens=12) for text in TEXTS]
        assert sizes == [3]


def test_other_searches_and_seeds_wait_for_their_own_batch():
    beams, seeded = Search(max_new_tokens=12, num_beams=2), Search(max_new_tokens=12, temperature=1.0, seed=3)
    asked = [("x", GREEDY), ("x", beams), ("y", GREEDY), ("x", seeded), ("x", seeded), ("y", beams)]
    results, sizes = answer(tiny_model(), asked)
    assert sizes == [2, 2, 1, 1]
    texts = first_texts(results)
    assert texts[3] == texts[4]


def test_limits_of_a_batch():
    model = tiny_model()
    _, sizes = answer(model, [("x", GREEDY)] * 5, max_batch_size=2)
    assert sizes == [2, 2, 1]
    long = "x" * 49
    _, sizes = answer(model, [(long, GREEDY)] * 3, max_input_ids=50)
    assert sizes == [2, 1], "padded positions: twice the longest input"
    _, sizes = answer(model, [("x", Search(max_new_tokens=2, num_beams=8))] * 4, max_input_ids=16)
    assert sizes == [2, 2], "beams are rows too"


def test_cancelled_jobs_are_left_out():
    results, sizes = answer(tiny_model(), [(text, GREEDY) for text in TEXTS], cancelled=[1])
    assert len(results) == 2
    assert sizes == [2]


def test_a_short_answer_does_not_wait_for_a_long_one(monkeypatch):
    """It begins beside it, and both are those that each has alone."""
    monkeypatch.setattr(worker, "ALONE_SECONDS", 0.0)
    model = tiny_model()
    endless = Search(max_new_tokens=20_000, stop_loops=False)
    labelled = Search(max_new_tokens=1, labels=("개", "새"))
    expected = model.answer("안녕", max_new_tokens=400, stop_loops=False)
    alone = model.answer("x", max_new_tokens=12)

    async def work() -> None:
        answering = Worker(model, ServingLimits(), Metrics())

        def put(text: str, search: Search) -> Job:
            job = Job(answering.processor.example([text]), search, False, time.monotonic(), 60.0)
            answering.waiting.put(job)
            return job

        long = put("안녕", endless)
        answering.start()
        pieces = long.events()
        written = str(await anext(pieces))
        short, label = put("x", GREEDY), put("x", labelled)
        assert first_texts([await finish(short)]) == [alone]
        assert (await finish(label)).probabilities is not None
        assert not long.is_done
        while len(written) < len(expected):
            written += str(await anext(pieces))
        assert written.startswith(expected)
        long.cancel()
        await asyncio.to_thread(answering.stop)

    asyncio.run(work())


def test_what_begins_beside_others_is_within_the_positions_of_a_batch():
    async def work() -> None:
        answering = Worker(tiny_model(), ServingLimits(max_input_ids=50), Metrics())
        jobs = [
            Job(answering.processor.example([text]), search, False, time.monotonic(), 60.0)
            for text, search in (
                ("x" * 9, Search(max_new_tokens=12, num_beams=2)),  # beams would hold the others up
                ("x" * 49, GREEDY),
                ("x" * 9, GREEDY),
                ("x" * 19, GREEDY),
                ("x" * 9, GREEDY),
            )
        ]
        for job in jobs:
            answering.waiting.put(job)
        assert answering.waiting.take_beside(75) == [jobs[2], jobs[4]]
        assert answering.waiting.take_beside(75) == [jobs[3]]
        assert answering.waiting.take_beside(75) == []
        assert answering.waiting.take_beside(50) == [jobs[1]]
        assert answering.waiting.gather() == [jobs[0]]

    asyncio.run(work())


def test_jobs_of_clients_that_left_do_not_stay_in_the_line():
    async def work() -> None:
        answering = Worker(tiny_model(), ServingLimits(), Metrics())
        example = answering.processor.example(["x"])
        for _ in range(5):
            job = Job(example, GREEDY, False, time.monotonic(), 60.0)
            answering.waiting.put(job)
            job.cancel()
        answering.waiting.put(Job(example, GREEDY, False, time.monotonic() - 61.0, 60.0))  # late
        answering.waiting.put(Job(example, GREEDY, False, time.monotonic(), 60.0))
        assert len(answering.waiting) == 1

    asyncio.run(work())


def test_jobs_of_a_batch_that_fails_are_tried_alone(monkeypatch):
    model = tiny_model()
    expected = [model.answer(text, max_new_tokens=12) for text in TEXTS]
    answers = model.answer

    def fail_together(inputs: Any, **arguments: Any) -> Any:
        if not isinstance(inputs, str) and (
            len(inputs["input_ids"]) > 1 or inputs["input_ids"].shape[1] == 2
        ):
            raise RuntimeError("secret")
        return answers(inputs, **arguments)

    monkeypatch.setattr(model, "answer", fail_together)
    results, sizes = answer(model, [(text, GREEDY) for text in TEXTS])
    assert sizes == [3, 1, 1, 1]
    assert first_texts([results[0], results[2]]) == [expected[0], expected[2]]
    assert isinstance(results[1], ApiError)
    assert results[1].status_code == 500
