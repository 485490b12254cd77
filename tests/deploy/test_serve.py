"""Ray Serve runs the same app: several replicas give the predictions of the predictor."""

import re
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from ray.cluster_utils import Cluster
from rich.console import Console

from raysk.cli.main import main
from raysk.deploy.serve import deployed
from raysk.inference.predictor import Predictor
from raysk.inference.serving.uploads import Limits
from tests.inference.drawn_bundles import draw_bundle


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lesions.raysk"
    draw_bundle([("test_resnet", 24)], [(0, "linear")], ["identity", "hflip"]).write(path)
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.soak
def test_replicas_predict_what_the_predictor_does_and_refuse_what_the_service_refuses(file, manifest, capsys):
    port = free_port()
    contents = [Path(path).read_bytes() for path in manifest.paths[:20]]
    expected = Predictor(draw_bundle([("test_resnet", 24)], [(0, "linear")], ["identity", "hflip"]), "cpu")
    console = Console(soft_wrap=True)
    with deployed(file, None, 2, "127.0.0.1", port, Limits(images=3), console), httpx.Client(timeout=60) as client:
        address = f"http://127.0.0.1:{port}"
        assert address in capsys.readouterr().out

        def ask(content):
            answer = client.post(f"{address}/predict", content=content, headers={"Content-Type": "image/png"})
            return list(answer.json()["images"][0]["probabilities"].values())

        with ThreadPoolExecutor(20) as clients:
            answers = list(clients.map(ask, contents))
        np.testing.assert_allclose(answers, expected.predict_proba(contents), atol=1e-6, rtol=0)
        assert client.get(f"{address}/health").json()["status"] == "ok"
        assert client.get(f"{address}/").headers["Content-Security-Policy"]
        files = [("images", ("a.png", contents[0]))] * 4
        assert client.post(f"{address}/predict", files=files).status_code == 400
        assert client.post(f"{address}/predict", content=b"x", headers={"Content-Type": "image/png"}).status_code == 415
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


@pytest.mark.soak
def test_the_command_serves_on_an_existing_cluster_until_a_signal(file, manifest, monkeypatch):
    # A short path: it holds Unix sockets, whose names are limited to about 100 characters.
    with tempfile.TemporaryDirectory(prefix="raysk-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        head = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        words = ["serve", str(file), "--address", cluster.address, "--replicas", "2", "--port", str(free_port())]
        command = [sys.executable, "-m", "raysk.cli", *words]
        try:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
                line = program.stdout.readline()
                address = re.search(r"http://127\.0\.0\.1:\d+", line).group()
                content = Path(manifest.paths[0]).read_bytes()
                answer = httpx.post(f"{address}/predict", files={"images": ("a.png", content)}, timeout=60)
                assert answer.status_code == 200, answer.text
                program.send_signal(signal.SIGTERM)
                assert program.wait(60) == 0
                assert program.stdout.read().endswith("the service has ended\n")  # Ray may have spoken before
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{address}/health")
        finally:
            cluster.shutdown()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replicas", "2"], "--replicas needs a cluster"),
        (["--address", "127.0.0.1:1", "--replicas", "0"], "--replicas must be at least 1"),
        (["--address", "127.0.0.1:1", "--port", "0"], "--address must be the address of a running Ray cluster"),
        (["--address", "auto", "--row", "1"], "a row must be chosen when the bundle is made"),
    ],
)
def test_what_a_cluster_cannot_serve_is_refused_in_one_line(file, capsys, words, message):
    assert main(["serve", str(file), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_directory_must_be_packed_for_a_cluster(tmp_path, capsys):
    assert main(["serve", str(tmp_path), "--address", "auto"]) == 2
    assert "raysk bundle" in capsys.readouterr().err
