"""One service for all tests that do not change it."""

from pathlib import Path

import httpx
import pytest

from raysk.inference.predictor import Predictor
from raysk.inference.serving.app import create_app
from raysk.inference.serving.uploads import Limits
from tests.inference.drawn_bundles import draw_bundle
from tests.inference.serving.services import serving

LIMITS = Limits(request_bytes=100_000, image_bytes=40_000, images=4)


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    encoders = [("test_resnet", 24), ("test_convnext", 32)]
    return Predictor(draw_bundle(encoders, [(0, "linear"), (1, "ncm")], ["identity", "rot90"]), "cpu")


@pytest.fixture(scope="session")
def address(predictor):
    with serving(create_app(predictor, LIMITS)) as address:
        yield address


@pytest.fixture
def client(address):
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client
        assert client.get("/health").json()["requests"] == 0  # whatever a test sent, the service lives on


@pytest.fixture(scope="session")
def images(manifest) -> list[Path]:
    return [Path(path) for path in manifest.paths[:32]]
