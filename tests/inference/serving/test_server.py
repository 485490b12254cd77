"""`raysk serve` as a program: where it listens, what it says, and how it ends."""

import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from rich.console import Console

from raysk.cli.main import main
from raysk.errors import ConfigError
from raysk.inference.serving.server import announce, listening
from raysk.inference.serving.uploads import Limits


@pytest.fixture
def file(tmp_path, predictor):
    path = tmp_path / "lesions.raysk"
    predictor.bundle.write(path)
    return path


def test_the_program_serves_until_a_signal(file, images, predictor):
    command = [sys.executable, "-m", "raysk.cli", "serve", str(file), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        try:
            line = program.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", line).group()
            content = images[0].read_bytes()
            headers = {"Content-Type": "image/png"}
            (image,) = httpx.post(f"{address}/predict", content=content, headers=headers, timeout=60).json()["images"]
            expected = predictor.predict_proba([content])[0]
            assert list(image["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
            program.send_signal(signal.SIGTERM)
            assert program.wait(60) == 0
            assert program.stdout.read() == "the service has ended\n"
        finally:
            program.kill()


def test_a_port_that_is_taken_is_refused_in_one_line(file, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(file), "--port", str(taken.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert "--host and --port must be free on this machine" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "port"), [("no.such.host.invalid", 0), ("", 99999), ("127.0.0.1", -1), ("x" * 300, 0)]
)
def test_places_at_which_nothing_can_listen_are_refused(host, port):
    with pytest.raises(ConfigError, match="must be free on this machine"):
        listening(host, port)


@pytest.mark.parametrize("words", [["--max-bytes", "0"], ["--max-images", "-3"]])
def test_limits_must_be_positive(file, capsys, words):
    assert main(["serve", str(file), *words]) == 2
    assert "must be positive" in capsys.readouterr().err


def test_defaults_accept_a_photograph_of_a_camera():
    assert Limits().image_bytes >= 16 * 2**20


@pytest.mark.parametrize(
    ("host", "address", "warned"),
    [
        ("127.0.0.1", "http://127.0.0.1:80", False), ("localhost", "http://localhost:80", False),
        ("::1", "http://[::1]:80", False), ("0.0.0.0", "http://0.0.0.0:80", True),
        ("laptop", "http://laptop:80", True),
    ],
)  # fmt: skip
def test_a_service_that_others_can_reach_has_a_warning(predictor, capsys, host, address, warned):
    announce(host, 80, predictor.bundle, Console(soft_wrap=True))
    text = capsys.readouterr().out
    assert address in text
    assert ("warning: everyone who reaches" in text) == warned
