"""Every line of docs/models.md on exported files and on the service runs, in order, on a tiny bundle."""

import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from raysk.cli.main import main
from raysk.inference.predictor import load
from tests.inference.drawn_bundles import draw_bundle

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BLOCK = re.compile(r"^```(sh|py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def here(manifest, tmp_path, monkeypatch):
    """A folder as the page has it: a bundle and photographs."""
    draw_bundle([("test_resnet", 24)], [(0, "linear")], ["identity", "hflip"]).write(tmp_path / "lesions.raysk")
    (tmp_path / "photographs").mkdir()
    for name, image in zip("ab", manifest.paths, strict=False):
        shutil.copy(image, tmp_path / "photographs" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_line_on_exported_files_and_on_the_service_runs(here, capfd):
    if shutil.which("curl") is None:
        pytest.skip("needs curl on the path")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    seen: dict[str, object] = {}
    services: list[subprocess.Popen[str]] = []
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8").replace("8000", port))
    assert len(blocks) == 6
    try:
        for language, block in blocks:
            if language == "py":
                exec(block, seen)
                continue
            for words in map(shlex.split, block.splitlines()):
                if words[:2] == ["raysk", "serve"]:
                    program = [sys.executable, "-m", "raysk.cli", *words[1:]]
                    services.append(subprocess.Popen(program, stdout=subprocess.PIPE, text=True))
                    assert port in services[0].stdout.readline()
                elif words[0] == "raysk":
                    assert main(words[1:]) == 0, capfd.readouterr().err
                else:
                    subprocess.run(words, check=True)
        services[0].send_signal(signal.SIGINT)
        assert services[0].wait(60) == 0
    finally:
        for service in services:
            service.kill()
            service.communicate()
    expected = load("lesions.raysk", device="cpu").predict_proba(["photographs/a.png"])[0]
    assert list(seen["by_class"].values()) == pytest.approx(expected, abs=1e-4)
    assert seen["same"][0].tolist() == pytest.approx(expected, abs=1e-4)
    assert list(seen["image"]["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
