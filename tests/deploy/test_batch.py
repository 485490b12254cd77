"""`raysk predict --address`: the same result on a real Ray as without it, and one line without a cluster."""

import numpy as np
import pandas as pd
import pytest

from raysk.cli.main import main
from raysk.inference import predictor
from raysk.inference.parts import Parts


@pytest.fixture
def words(bundle_file, cache, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    return ["predict", str(bundle_file), str(cache / "drawn" / "images"), str(tmp_path / "broken.png"), "gone.png"]


@pytest.mark.soak
def test_ray_data_gives_what_one_process_gives_and_goes_on_with_its_parts(words, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(predictor, "_MOST_IMAGES", 40)
    assert main([*words, "--output", str(tmp_path / "alone.csv")]) == 0
    write = Parts.write
    numbers = []

    def noted(self, number, *result):
        if numbers == [0]:
            numbers.clear()
            raise KeyboardInterrupt
        numbers.append(number)
        write(self, number, *result)

    monkeypatch.setattr(Parts, "write", noted)
    assert main([*words, "--output", str(tmp_path / "ray.csv")]) == 130
    assert main([*words, "--output", str(tmp_path / "ray.csv"), "--address", "local"]) == 0
    assert sorted(numbers) == [1, 2], "Ray predicted what the first attempt had not finished"
    alone, ray = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("alone", "ray"))
    assert ray[["image", "label"]].equals(alone[["image", "label"]])
    np.testing.assert_allclose(ray.iloc[:, 2:], alone.iloc[:, 2:], atol=1e-6, rtol=0)
    assert (tmp_path / "ray-unreadable.csv").read_text() == (tmp_path / "alone-unreadable.csv").read_text()
    output = capfd.readouterr().out
    assert "110 images by ensemble: greedy; 2 cannot be read" in output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--address", "127.0.0.1:1"], "--address must be the address of a running Ray cluster, but got '127.0.0.1:1'"),
        (["--address", "127.0.0.1:1", "--device", "cpu"], "--device must be left out with --address"),
    ],
)
def test_a_cluster_that_does_not_answer_is_one_line(more, message, words, tmp_path, capfd):
    assert main([*words, "--output", str(tmp_path / "out.csv"), *more]) == 2
    errors = capfd.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not [path for path in tmp_path.iterdir() if path.name != "broken.png"]
