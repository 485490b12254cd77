"""The page in a browser: an image that is chosen gets a bar for each class, and a bomb gets its reason."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.inference.serving.test_app import BOMB

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")


class Page:
    """A page that the browser has opened, steered by the protocol of its developer tools."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._last = connection, 0
        self.problems: list[str] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        self._connection.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(30))
            if message.get("method") in ("Runtime.exceptionThrown", "Audits.issueAdded"):
                self.problems.append(json.dumps(message))
            if message.get("id") == self._last:
                return message["result"]

    def value(self, expression: str) -> Any:
        """What a script gives; waits for a promise."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        script = "new Promise(done => { const look = () => (%s) ? done(true) : setTimeout(look, 20); look(); })"
        assert self.value(script % expression)


@pytest.fixture(scope="module")
def page(tmp_path_factory, address) -> Iterator[Page]:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
               f"--user-data-dir={tmp_path_factory.mktemp('browser')}", "about:blank"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as browser:
        try:
            place = next(match for line in browser.stderr if (match := re.search(r"ws://[^/]+/", line))).group()
            targets = httpx.get(place.replace("ws:", "http:") + "json").json()
            target = next(target for target in targets if target["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None) as connection:
                page = Page(connection)
                for domain in ("Page", "Runtime", "Audits", "DOM"):
                    page.ask(f"{domain}.enable")
                page.ask("Page.navigate", url=address)
                page.wait_for("document.title !== 'raysk' && document.readyState === 'complete'")
                yield page
        finally:
            browser.terminate()


def choose(page: Page, *files: Path) -> None:
    root = page.ask("DOM.getDocument")["root"]["nodeId"]
    node = page.ask("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    page.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])


def test_a_chosen_image_gets_a_bar_for_each_class_and_a_bomb_its_reason(page, images, predictor, tmp_path):
    (tmp_path / "bomb.png").write_bytes(BOMB)
    choose(page, images[0], tmp_path / "bomb.png")
    page.wait_for("document.querySelectorAll('.problem').length === 1 && document.querySelectorAll('h2').length === 1")
    assert "bomb.png cannot be read" in page.value("document.querySelector('.problem').textContent")
    (expected,) = predictor.predict_proba([images[0]])
    assert page.value("document.querySelector('h2').textContent") == predictor.predict([images[0]])[0]
    bars = page.value("[...document.querySelectorAll('meter')].map(bar => [bar.ariaLabel, bar.value])")
    assert [label for label, _ in bars] == [predictor.classes_[place] for place in expected.argsort()[::-1]]
    assert [value for _, value in bars] == pytest.approx(sorted(expected, reverse=True), abs=1e-6)
    assert not page.problems  # such as a script or a style that the policy forbids


def test_the_page_shows_what_the_bundle_is(page, predictor):
    facts = predictor.bundle.facts
    assert page.value("document.querySelector('h1').textContent") == facts.provenance.name
    assert page.value("document.querySelector('#card').textContent") == predictor.bundle.card


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_fits_its_window(page, width):
    page.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    assert page.value("document.documentElement.scrollWidth") <= width
