import re

import yaml

from raysk.cli.explaining import explain
from raysk.config import compose_plain, read_config


def test_the_printed_yaml_is_the_configuration():
    plain = yaml.safe_load(explain(compose_plain()))
    assert read_config(plain) == read_config(compose_plain())
    assert plain["stage_one"]["loss"] == {"name": "supcon", "temperature": 0.07}


def test_every_line_describes_its_setting_and_its_range():
    lines = explain(compose_plain()).splitlines()
    bare = [line for line in lines if not re.search(r"  # \S", line)]
    assert not bare, bare
    assert re.search(r"k: 3 +# The number of folds. \[in \[2, 100\]\]", "\n".join(lines))
    assert re.search(r"frozen: true +# Whether .* \[true or false\]", "\n".join(lines))


def test_a_setting_of_two_kinds_shows_both():
    text = explain(compose_plain("stage_two.loss.weights=[1,2]"), "stage_two.loss")
    assert re.search(r"weights: \[1, 2\] +# .* \[one of balanced, .*none, or a list; each in \(0, 1e\+09\]\]", text)
    assert "a: 1" in explain(compose_plain("stage_two.loss.weights={a: 1}"), "stage_two.loss")


def test_a_node_has_the_settings_of_its_named_part():
    text = explain(compose_plain("stage_two.head.name=cosine", "stage_two.head.scale=7"), "stage_two.head")
    assert [line.partition("#")[0].split() for line in text.splitlines()] == [["name:", "cosine"], ["scale:", "7"]]
