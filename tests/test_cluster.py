"""cluster.yaml is a configuration that the installed Ray accepts, for AWS and for owned machines."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from raysk.cli.main import main

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^# ---- Part .*$", re.MULTILINE)


def uncommented(text: str) -> str:
    """Removes the '# ' from the lines of a block, as its heading asks a user to do; '##' lines are prose."""
    lines = [line for line in text.splitlines() if not line.startswith("##")]
    return "\n".join(line.removeprefix("#").removeprefix(" ") if line.startswith("#") else line for line in lines)


def cluster(kind: str) -> dict[str, Any]:
    head, aws, owned, shared = HEADING.split((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    first = {"aws": aws, "local": uncommented(owned)}[kind]
    config = yaml.safe_load(head + first + shared)
    assert config["provider"]["type"] == kind
    return config


@pytest.mark.parametrize("kind", ["aws", "local"])
def test_ray_accepts_the_file(kind: str) -> None:
    prepared = prepare_config(cluster(kind))
    validate_config(prepared)
    for part in ("head_setup_commands", "worker_setup_commands"):
        assert any("raysk install" in command for command in prepared[part])
    with pytest.raises(Exception, match="unexpected"):
        validate_config(prepared | {"number_of_workers": 3})


def test_the_unedited_file_is_for_aws() -> None:
    assert yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")) == cluster("aws")


def test_workers_have_gpus_and_are_autoscaled() -> None:
    config = prepare_config(cluster("aws"))
    head, worker = (config["available_node_types"][name] for name in ("head", "gpu_worker"))
    assert config["head_node_type"] == "head"
    assert head["max_workers"] == 0
    assert (worker["min_workers"], worker["max_workers"]) == (0, config["max_workers"])
    assert worker["node_config"]["InstanceType"].startswith("g")


def test_owned_machines_all_join() -> None:
    config = cluster("local")
    (node_type,) = prepare_config(config)["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(config["provider"]["worker_ips"])


def test_mounted_files_exist_and_suffice_to_install() -> None:
    mounts = cluster("aws")["file_mounts"]
    for remote, local in mounts.items():
        assert remote == f"~/raysk/{local}"
        assert (ROOT / local).exists(), local
    needed = {"raysk", "search_spaces", "pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE"}
    assert needed <= set(mounts.values())


@pytest.mark.parametrize("kind", ["aws", "local"])
def test_commands_are_valid_shell(kind: str) -> None:
    config = prepare_config(cluster(kind))
    for part in ("initialization_commands", "head_setup_commands", "worker_setup_commands"):
        for command in config[part]:
            subprocess.run(["bash", "-n", "-c", command], check=True)


def documented_commands(program: str) -> list[list[str]]:
    """The commands of docs/cluster.md's code blocks that call `program`, as words."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs/cluster.md").read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words[words.index(program) + 1 :] for words in commands if program in words]


def test_documented_ray_commands_have_options_that_exist() -> None:
    commands = documented_commands("ray")
    assert {"up", "down", "job"} <= {words[0] for words in commands}
    for words in commands:
        command: click.Command = ray_cli
        ray_words = words[: words.index("--")] if "--" in words else words
        while isinstance(command, click.Group):
            command = command.commands[ray_words[0]]
            ray_words = ray_words[1:]
        options = {option for parameter in command.params for option in parameter.opts}
        for word in ray_words:
            assert not word.startswith("-") or word.partition("=")[0] in options, f"ray {' '.join(words)}: {word}"


def test_documented_raysk_commands_have_options_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    commands = documented_commands("raysk")
    assert {"tune", "leaderboard"} == {words[0] for words in commands}
    for words in commands:
        with pytest.raises(SystemExit):
            main([words[0], "--help"])
        answer = capsys.readouterr().out
        for word in words:
            assert not word.startswith("-") or re.search(rf"{word}\b", answer), f"raysk {words[0]} has no {word}"
