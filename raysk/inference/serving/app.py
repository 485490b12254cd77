"""The service as an ASGI app, which uvicorn and Ray Serve run: predictions of uploaded images, and a page."""

import asyncio
import logging
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from hashlib import sha256
from importlib.resources import files

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline

import raysk
from raysk.inference.predictor import Predictor
from raysk.inference.serving.answers import Accepted, Answer, Health, ImageAnswer, ModelAnswer, Problem
from raysk.inference.serving.batching import Batcher
from raysk.inference.serving.uploads import Limits, Upload, pixels_of_upload, read_uploads

_log = logging.getLogger(__name__)

_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"images": {"type": "array", "items": _FILE}}, "required": ["images"]}
_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": _FORM}, "image/*": {"schema": _FILE}},
}
_PROBLEMS = {
    400: "The form is damaged, has too many files, or ended early.",
    408: "The request took too long to arrive.",
    413: "The request or an image has too many bytes.",
    415: "The request or an image is of another type.",
    422: "There is no image, or an image is damaged or too large when decoded.",
    500: "The classifier failed, or gives no number.",
    503: "Too many requests wait: come again after the seconds in Retry-After.",
}


class Service:
    """Answers requests with one classifier.

    Args:
        predictor: The classifier.
        limits: What it accepts.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        self.num_requests = 0
        self._batcher: Batcher
        self._decoders: ThreadPoolExecutor

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Has the threads of the service."""
        num_decoders = min(4, os.cpu_count() or 1)
        async with Batcher(self.predictor.predict_pixels) as self._batcher:
            with ThreadPoolExecutor(num_decoders, thread_name_prefix="decode") as self._decoders:
                yield

    @contextmanager
    def place(self) -> Iterator[None]:
        """Counts a request; refuses it if too many others are being answered."""
        if self.num_requests >= self.limits.requests:
            raise HTTPException(503, "too many requests wait: come again", headers={"Retry-After": "1"})
        self.num_requests += 1
        try:
            yield
        finally:
            self.num_requests -= 1

    async def answer(self, uploads: list[Upload]) -> Answer:
        """Predicts images."""
        loop, facts = asyncio.get_running_loop(), self.predictor.bundle.facts
        decode = partial(pixels_of_upload, sizes=facts.image_sizes, bits=facts.bits)
        decoding = [loop.run_in_executor(self._decoders, decode, upload) for upload in uploads]
        pixels = await asyncio.gather(*decoding)
        try:
            predicted = await self._batcher.predict(list(pixels))
        except Exception:  # whatever the network raises: the service goes on
            _log.exception("a batch failed")
            raise HTTPException(500, "the classifier failed on these images: the log of the service has it") from None
        if not np.isfinite(predicted.probabilities).all():
            raise HTTPException(500, "the classifier gives no number for these images")
        names = facts.class_names
        decisions = self.predictor.decide(predicted.probabilities)
        images = [
            ImageAnswer(
                name=upload.name,
                label=names[probabilities.argmax()],
                decision=decision if facts.thresholds else None,
                probabilities=dict(zip(names, probabilities.tolist(), strict=True)),
                disagreement=float(disagreement),
            )
            for upload, probabilities, decision, disagreement in zip(
                uploads, predicted.probabilities, decisions.tolist(), predicted.disagreement, strict=True
            )
        ]
        return Answer(images=images)


def create_app(predictor: Predictor, limits: Limits | None = None) -> FastAPI:
    """Returns the app of a classifier."""
    service = Service(predictor, limits or Limits())
    bundle = predictor.bundle
    app = FastAPIOffline(
        redoc_url=None,
        # Not the name of the classifier: the page /docs takes it as HTML.
        title="raysk",
        version=raysk.__version__,
        description=bundle.card,
        lifespan=service.running,
    )
    page = (files(__package__) / "page.html").read_text(encoding="utf-8")
    page_headers = {"Content-Security-Policy": _policy(page), "X-Content-Type-Options": "nosniff"}
    accepted = Accepted(
        request_bytes=service.limits.request_bytes,
        image_bytes=service.limits.image_bytes,
        images=service.limits.images,
    )

    @app.post(
        "/predict",
        responses={status: {"model": Problem, "description": text} for status, text in _PROBLEMS.items()},
        openapi_extra={"requestBody": _BODY},
    )
    async def predict(request: Request) -> Answer:
        """Predicts one image, which is the body, or several, which are files of a form."""
        with service.place():
            return await service.answer(await read_uploads(request, service.limits))

    @app.get("/health")
    async def health() -> Health:
        """Answers if the service can predict."""
        return Health(model=bundle.facts.provenance.name, digest=bundle.digest, requests=service.num_requests)

    @app.get("/model")
    async def model() -> ModelAnswer:
        """Tells what is known of the classifier."""
        return ModelAnswer(digest=bundle.digest, facts=bundle.facts, card=bundle.card, accepted=accepted)

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=page_headers)

    return app


def _policy(page: str) -> str:
    """Returns the content security policy of a page: only its own style and script, and this service."""
    return (
        f"default-src 'none'; style-src {_digest(page, 'style')}; script-src {_digest(page, 'script')}; "
        "connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(page: str, element: str) -> str:
    content = page.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
