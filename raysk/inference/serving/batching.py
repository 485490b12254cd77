"""Dynamic batches: images that wait at the same time are predicted together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from raysk.data.store.decoding import Pixels
from raysk.inference.predictor import Predicted

# No image waits for others: a batch is what arrived while the one before it was computed.
MOST_IMAGES = 64


@dataclass(frozen=True)
class _Waiting:
    """The images of a request, and where their prediction goes."""

    pixels: list[list[Pixels]]
    answer: asyncio.Future[Predicted]


class Batcher:
    """Predicts the images of many requests in one thread. Use it in one event loop.

    Args:
        predict: Predicts one batch, as `Predictor.predict_pixels`.
        most_images: A batch takes no further request once it has this many images.
    """

    def __init__(self, predict: Callable[[list[list[Pixels]]], Predicted], most_images: int = MOST_IMAGES) -> None:
        self._predict, self._most_images = predict, most_images
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Batcher":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        while not self._waiting.empty():
            self._waiting.get_nowait().answer.cancel()
        self._thread.shutdown(wait=True)

    async def predict(self, pixels: list[list[Pixels]]) -> Predicted:
        """Predicts prepared images, together with those of other requests that wait."""
        answer: asyncio.Future[Predicted] = asyncio.get_running_loop().create_future()
        await self._waiting.put(_Waiting(pixels, answer))
        return await answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            images = [image for request in batch for image in request.pixels]
            try:
                predicted = await loop.run_in_executor(self._thread, self._predict, images)
            except Exception as error:  # it belongs to these requests; the others go on
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
                continue
            start = 0
            for request in batch:
                part = slice(start, start := start + len(request.pixels))
                if not request.answer.done():
                    request.answer.set_result(Predicted(predicted.probabilities[part], predicted.disagreement[part]))

    async def _next_batch(self) -> list[_Waiting]:
        """Waits for a request, and adds those that wait with it; those whose client has gone are left out."""
        batch: list[_Waiting] = []
        count = 0
        while not batch or (count < self._most_images and not self._waiting.empty()):
            request = await self._waiting.get()
            if not request.answer.done():
                batch.append(request)
                count += len(request.pixels)
        return batch
