"""Requests that wait are predicted together, and each gets its own part."""

import asyncio
import threading

import numpy as np
import pytest

from raysk.inference.predictor import Predicted
from raysk.inference.serving.batching import Batcher


class Recorder:
    """Predicts the first number of each image, and waits in its first batch until it is told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()

    def __call__(self, pixels) -> Predicted:
        numbers = [int(image[0]) for image in pixels]
        self.batches.append(numbers)
        assert self.go_on.wait(30)
        if 99 in numbers:
            raise RuntimeError("99")
        return Predicted(np.array(numbers)[:, None], np.array(numbers) / 2)


async def begun(recorder: Recorder, count: int) -> None:
    while len(recorder.batches) < count:
        await asyncio.sleep(0.001)


def request(*numbers: int):
    return [[np.array(number)] for number in numbers]


async def asked(recorder: Recorder, *requests) -> list[Predicted | BaseException]:
    """The answers to a request, and to those that arrive while it is predicted."""
    async with Batcher(recorder, most_images=4) as batcher:
        first = asyncio.create_task(batcher.predict(request(0)))
        await begun(recorder, 1)
        others = [asyncio.create_task(batcher.predict(request(*numbers))) for numbers in requests]
        await asyncio.sleep(0)
        recorder.go_on.set()
        return await asyncio.gather(first, *others, return_exceptions=True)


def test_requests_that_wait_share_batches_up_to_the_limit():
    recorder = Recorder()
    answers = asyncio.run(asked(recorder, [1, 2], [3], [4, 5, 6], [7]))
    assert recorder.batches == [[0], [1, 2, 3, 4, 5, 6], [7]]
    assert [answer.probabilities.ravel().tolist() for answer in answers] == [[0], [1, 2], [3], [4, 5, 6], [7]]
    assert [answer.disagreement.tolist() for answer in answers] == [[0], [0.5, 1], [1.5], [2, 2.5, 3], [3.5]]


def test_an_error_reaches_the_requests_of_its_batch_and_no_other():
    answers = asyncio.run(asked(Recorder(), [1], [99], [3, 4], [5]))
    assert [isinstance(answer, RuntimeError) for answer in answers] == [False, True, True, True, False]


def test_requests_whose_clients_have_gone_are_not_predicted():
    async def run() -> None:
        async with Batcher(recorder) as batcher:
            first = asyncio.create_task(batcher.predict(request(0)))
            await begun(recorder, 1)
            gone = asyncio.create_task(batcher.predict(request(1)))
            await asyncio.sleep(0)
            gone.cancel()
            last = asyncio.create_task(batcher.predict(request(2)))
            await asyncio.sleep(0)
            recorder.go_on.set()
            await asyncio.gather(first, last)

    recorder = Recorder()
    asyncio.run(run())
    assert recorder.batches == [[0], [2]]


def test_an_ending_service_cancels_what_waits():
    async def run() -> None:
        async with Batcher(recorder) as batcher:
            tasks = [asyncio.create_task(batcher.predict(request(0)))]
            await begun(recorder, 1)
            tasks.append(asyncio.create_task(batcher.predict(request(1))))
            await asyncio.sleep(0)
            recorder.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        tasks[0].cancel()

    recorder = Recorder()
    asyncio.run(run())
    assert recorder.batches == [[0]]
