"""The service over HTTP: it predicts what the predictor does, refuses with a reason, and lives on."""

import io
import json
import re
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from raysk.inference.bundle import Bundle
from raysk.inference.predictor import Predictor
from raysk.inference.serving.app import create_app
from tests.inference.drawn_bundles import CLASSES, draw_bundle
from tests.inference.serving.conftest import LIMITS
from tests.inference.serving.services import serving


def in_format(kind: str, side: int = 40) -> bytes:
    file = io.BytesIO()
    levels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(levels).save(file, kind)
    return file.getvalue()


def png(width: int, height: int, content: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


BOMB = png(20_000, 20_000, bytes(5_000_000))
SMALL = in_format("PNG", 16)


def as_form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{place}.png", content)) for place, content in enumerate(contents)]


def probabilities(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([list(image["probabilities"].values()) for image in answer.json()["images"]])


def test_an_image_as_the_body_is_predicted_as_by_the_predictor(client, predictor, images):
    content = images[0].read_bytes()
    answer = client.post("/predict", content=content, headers={"Content-Type": "image/png"})
    np.testing.assert_allclose(probabilities(answer), predictor.predict_proba([content]), atol=1e-6, rtol=0)
    (image,) = answer.json()["images"]
    assert list(image["probabilities"]) == list(CLASSES)
    assert image["label"] == predictor.predict([content])[0]
    assert image["disagreement"] in (0, pytest.approx(0.25), pytest.approx(0.5), pytest.approx(0.75))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WebP", "BMP"])
def test_images_of_a_form_are_predicted_in_order(client, predictor, kind):
    contents = [in_format(kind, side) for side in (20, 40, 70)]
    answer = client.post("/predict", files=as_form(*contents))
    np.testing.assert_allclose(probabilities(answer), predictor.predict_proba(contents), atol=1e-6, rtol=0)
    assert [image["name"] for image in answer.json()["images"]] == ["0.png", "1.png", "2.png"]


def test_32_clients_at_once_share_batches_and_get_what_they_would_get_alone(predictor, images):
    batches = []

    class Counting(Predictor):
        def predict_pixels(self, pixels):
            batches.append(len(pixels))
            return super().predict_pixels(pixels)

    contents = [path.read_bytes() for path in images]
    with serving(create_app(Counting(predictor.bundle, "cpu"))) as address, httpx.Client(timeout=60) as client:

        def ask(content: bytes) -> np.ndarray:
            return probabilities(
                client.post(f"{address}/predict", content=content, headers={"Content-Type": "image/*"})
            )

        with ThreadPoolExecutor(32) as clients:
            answers = np.concatenate(list(clients.map(ask, contents * 2)))
    expected = predictor.predict_proba(contents)
    np.testing.assert_allclose(answers, np.concatenate([expected, expected]), atol=1e-6, rtol=0)
    assert sum(batches) == 64
    assert len(batches) < 64


REFUSED = {
    "no body": ({"headers": {"Content-Type": "image/png"}}, 422, "must bring an image"),
    "no type": ({"content": SMALL}, 415, "must be an image"),
    "JSON": ({"json": {}}, 415, "must be an image"),
    "a form without files": ({"files": {}, "data": {"images": "x"}}, 415, "must be an image"),
    "a form with a text": ({"files": {"images": (None, "x")}}, 422, "must bring an image"),
    "no boundary": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    "a damaged form": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
                       400, "Invalid multipart data"),
    "too many files": ({"files": as_form(*[SMALL] * 5)}, 400, "Maximum number of files is 4"),
    "too large an image": ({"files": as_form(SMALL, bytes(40_001))}, 413, "1.png has 40,001 bytes"),
    "too large a request": ({"files": as_form(*[bytes(30_000)] * 4)}, 413, "at most 100,000 bytes"),
    "too large a body": ({"content": SMALL + bytes(200_000), "headers": {"Content-Type": "image/png"}}, 413, "at most"),
    "too large in pieces": ({"content": iter([SMALL, *[bytes(50_000)] * 3]), "headers": {"Content-Type": "image/png"}},
                            413, "at most 100,000 bytes"),
    "far too large": ({"content": bytes(30_000_000), "headers": {"Content-Type": "image/png"}}, 413, "at most"),
    "a text": ({"files": as_form(b"hello")}, 415, "0.png must be one of JPEG, PNG"),
    "another format": ({"files": as_form(in_format("GIF"))}, 415, "0.png must be one of JPEG, PNG"),
    "a program": ({"files": as_form(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")}, 415, "must be one of"),
    "an empty file": ({"files": as_form(b"")}, 415, "must be one of"),
    "a damaged image": ({"files": as_form(SMALL, SMALL[:200])}, 422, "1.png cannot be read"),
    "a bomb": ({"files": as_form(BOMB)}, 422, "400000000 pixels"),
    "a smaller bomb": ({"files": as_form(png(10_000, 10_000, bytes(9)))}, 422, "10000 by 10000 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_has_a_reason(client, name):
    request, status, reason = REFUSED[name]
    answer = client.post("/predict", **request)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text


def test_no_pixel_of_a_bomb_is_decoded(client, monkeypatch):
    assert len(BOMB) < 6000
    monkeypatch.setattr(Image.Image, "load", None)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    assert client.post("/predict", files=as_form(BOMB)).status_code == 422
    assert client.post("/predict", files=as_form(png(10_000, 10_000, bytes(9)))).status_code == 422


def test_other_methods_and_places_are_refused(client):
    assert client.get("/predict").status_code == 405
    assert client.get("/../../etc/passwd").status_code == 404


class Blocked(Predictor):
    """Predicts when it is told to."""

    begun: threading.Event
    go_on: threading.Event

    def predict_pixels(self, pixels):
        self.begun.set()
        assert self.go_on.wait(30)
        return super().predict_pixels(pixels)


def test_a_full_service_asks_to_come_again_and_still_says_that_it_is_healthy(predictor):
    blocked = Blocked(predictor.bundle, "cpu")
    blocked.begun, blocked.go_on = threading.Event(), threading.Event()
    with (
        serving(create_app(blocked, replace(LIMITS, requests=2))) as address,
        httpx.Client(base_url=address, timeout=60) as client,
        ThreadPoolExecutor(2) as clients,
    ):
        waiting = [clients.submit(client.post, "/predict", files=as_form(SMALL)) for _ in range(2)]
        blocked.begun.wait(30)
        while client.get("/health").json()["requests"] < 2:
            pass
        answer = client.post("/predict", files=as_form(SMALL))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        blocked.go_on.set()
        assert [future.result().status_code for future in waiting] == [200, 200]
        assert client.post("/predict", files=as_form(SMALL)).status_code == 200


UNFINISHED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx"


def test_a_body_that_does_not_arrive_is_refused(predictor):
    with serving(create_app(predictor, replace(LIMITS, seconds=0.1))) as address:
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx"
            )
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert httpx.get(f"{address}/health").json()["requests"] == 0


def test_clients_that_leave_are_forgotten(client, address):
    for sent in (
        b"",
        b"POST",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\nx",
    ):
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as connection:
            connection.sendall(sent)
    deadline = time.monotonic() + 30
    while (left := client.get("/health").json()["requests"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == 0


def test_an_error_of_the_classifier_is_an_error_of_its_request_only(predictor):
    class Failing(Predictor):
        def predict_pixels(self, pixels):
            if len(pixels) == 2:
                raise RuntimeError("out of memory")
            predicted = super().predict_pixels(pixels)
            return replace(predicted, probabilities=predicted.probabilities * (np.nan if len(pixels) == 3 else 1))

    with serving(create_app(Failing(predictor.bundle, "cpu"))) as address, httpx.Client(base_url=address) as client:
        for number, status in ((2, 500), (1, 200), (3, 500), (1, 200)):
            assert client.post("/predict", files=as_form(*[SMALL] * number)).status_code == status


KINDS = st.sampled_from(
    ["image/png", "image/", "multipart/form-data; boundary=b", "multipart/form-data", "text/x", "\xff"]
)
FORM = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + SMALL + b"\r\n--b--\r\n"


@st.composite
def damaged(draw) -> bytes:
    content = bytearray(draw(st.sampled_from([SMALL, in_format("JPEG", 16), in_format("TIFF", 16), FORM])))
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=KINDS, body=st.one_of(st.binary(max_size=300), damaged()))
def test_no_body_harms_the_service(client, kind, body):
    answer = client.post("/predict", content=body, headers={b"Content-Type": kind.encode("latin-1")})
    assert answer.status_code in (200, 400, 413, 415, 422)
    assert answer.status_code == 200 or answer.json()["detail"]


def test_the_service_tells_what_it_is(client, predictor):
    health = client.get("/health").json()
    assert (health["status"], health["model"]) == ("ok", "ensemble, greedy")
    model = client.get("/model").json()
    assert model["facts"] == json.loads(json.dumps(predictor.bundle.facts.to_plain()))
    assert model["card"] == predictor.bundle.card
    assert model["accepted"] == {"request_bytes": 100_000, "image_bytes": 40_000, "images": 4}


def test_the_interface_is_typed(client):
    interface = client.get("/openapi.json").json()
    operation = interface["paths"]["/predict"]["post"]
    assert set(operation["responses"]) == {"200", "400", "408", "413", "415", "422", "500", "503"}
    assert {"multipart/form-data", "image/*"} == set(operation["requestBody"]["content"])
    assert {"Answer", "ImageAnswer", "Health", "ModelAnswer", "Problem"} <= set(interface["components"]["schemas"])


def test_the_pages_load_nothing_from_elsewhere(client):
    page = client.get("/")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert not re.search(r"https?:|@import|url\(", page.text)
    assert not re.search(r"(src|href)=.?https?:", client.get("/docs").text)


def test_names_of_a_bundle_are_no_html(predictor):
    bundle = draw_bundle([("test_resnet", 24)], [(0, "linear")], ["identity"])
    facts = replace(bundle.facts, provenance=replace(bundle.facts.provenance, name="</title><script>alert(1)</script>"))
    with serving(create_app(Predictor(Bundle(facts, bundle.tensors, "<script>"), "cpu"))) as address:
        for path in ("/", "/docs"):
            assert "alert(1)" not in httpx.get(address + path).text
