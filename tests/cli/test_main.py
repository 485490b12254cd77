"""The command line, above all its errors: status 2, one line on stderr, and nothing left behind."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import raysk
from raysk.artifacts import read_json, write_json
from raysk.cli.main import main
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.sources import DataSettings, load_manifest
from raysk.data.store.building import build_store
from raysk.run import Run
from raysk.run_facts import data_digest
from raysk.spaces.space import load_space
from tests.run_facts import run_facts

SIZE = 16
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A table of two classes, "benign" and "malignant", with two photographs of each of 30 lesions."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    rows = ["image,label,group"]
    for number in range(60):
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'malignant' if number % 6 < 2 else 'benign'},lesion{number // 2}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def table(photographs, tmp_path):
    """A copy of the table and its images, to spoil."""
    shutil.copytree(photographs, tmp_path / "data")
    return tmp_path / "data" / "table.csv"


class Tune:
    """`raysk tune` in this process, up to where Ray would start."""

    def __init__(self, tmp_path, capfd):
        self.run, self.cache, self.capfd = tmp_path / "run", tmp_path / "cache", capfd

    def words(self, *words, space="supcon", run=None, data=()):
        return ["tune", "--space", space, "--run", str(run or self.run), f"cache={self.cache}", f"image_size={SIZE}",
                *data, *words]  # fmt: skip

    def refused(self, *words, **where):
        """Returns the error line; checks that nothing was written."""
        self.capfd.readouterr()
        run = where.get("run") or self.run
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")} if run.is_dir() else None
        status = main(self.words(*words, **where))
        output, errors = self.capfd.readouterr()
        assert (status, len(errors.splitlines())) == (2, 1), errors
        assert errors.startswith("raysk: ")
        assert "Traceback" not in output + errors
        after = {path: path.stat().st_mtime_ns for path in run.rglob("*")} if run.is_dir() else None
        assert after == before, "something was written"
        assert not list(self.cache.glob(".*")), "something was half-written"
        return errors.strip()


@pytest.fixture
def tune(tmp_path, capfd):
    return Tune(tmp_path, capfd)


def of(table, *words):
    return {"data": ["data=csv", f"data.path={table}", *words]}


def test_a_missing_column_is_named_with_the_existing_ones(tune, table):
    line = tune.refused(**of(table, "data.label=lable"))
    assert "'lable'" in line
    assert "label" in line.partition("'lable'")[2]


def test_a_missing_table_is_named(tune, tmp_path):
    assert str(tmp_path / "none.csv") in tune.refused(**of(tmp_path / "none.csv"))


def test_a_truncated_image_is_named_with_the_remedy(tune, table):
    image = table.parent / "7.png"
    image.write_bytes(image.read_bytes()[:300])
    line = tune.refused(**of(table))
    assert str(image) in line
    assert "1 of 60" in line
    assert "data.on_error=skip" in line


def test_a_missing_image_is_named(tune, table):
    (table.parent / "9.png").unlink()
    line = tune.refused(**of(table))
    assert str(table.parent / "9.png") in line
    assert "data.on_error=skip" in line


def test_unreadable_images_are_left_out_on_request_and_reported(table, tmp_path, capfd):
    from rich.console import Console

    from raysk.config import compose_plain, read_config
    from raysk.loading import read_images, read_rows

    spoilt = table.parent / "7.png"
    spoilt.write_bytes(spoilt.read_bytes()[:300])
    words = ["data=csv", f"data.path={table}", "data.on_error=skip", f"cache={tmp_path / 'cache'}", "image_size=16"]
    config, console = read_config(compose_plain(*words)), Console(soft_wrap=True)
    manifest, _ = read_images(read_rows(config, console), config, console)
    output = capfd.readouterr().out
    assert len(manifest) == 59
    assert "7.png" not in manifest.table.column("image").to_pylist()
    assert f"left out: row 7, {spoilt}: " in output
    assert "59 images: benign 40, malignant 19" in output


def test_an_unknown_label_is_named_with_the_nearest_class(tune, table):
    table.write_text(table.read_text().replace("3.png,benign", "3.png,bening", 1))
    line = tune.refused(**of(table, "data.classes=[benign,malignant]"))
    assert "'bening' in row 3" in line
    assert "the nearest class is 'benign'" in line


def test_a_class_with_fewer_groups_than_folds_is_named(tune, table):
    lines = table.read_text().replace(",malignant,", ",benign,").splitlines()
    lines[1:5] = [line.replace(",benign,", ",rare,") for line in lines[1:5]]
    table.write_text("\n".join(lines) + "\n")
    line = tune.refused(**of(table))
    assert "'rare'" in line
    assert "a group for each of the 4 parts (the folds and the test part), but 'rare' has 2" in line


def test_an_unknown_override_suggests_the_nearest_key(tune):
    assert "did you mean stage_one.epochs" in tune.refused("stage_one.epoch=5")


def test_an_unknown_loss_or_backbone_suggests_the_nearest_name(tune):
    assert "'supcom'; did you mean supcon" in tune.refused("stage_one.loss.name=supcom")
    assert "'resnett18'; did you mean resnet18" in tune.refused("model.backbone=resnett18")


def test_an_unknown_source_suggests_the_nearest_name(tune):
    assert "data source must be a known name, but got 'cvs'; did you mean csv" in tune.refused("data.source=cvs")


def test_an_unknown_space_suggests_the_nearest_name(tune):
    line = tune.refused(space="supercon")
    assert "a search space must be a known name, but got 'supercon'; did you mean supcon?" in line


def test_a_space_with_invalid_controls_is_refused_before_any_work(tune, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("about: Wrong.\ncontrols: {wrong: [stage_one=null]}\n")
    assert "model must have trained weights for a frozen encoder" in tune.refused(space=str(path))
    assert not tune.cache.exists()


def test_a_start_that_cannot_train_on_a_fold_is_refused_before_ray_starts(tune, table, tmp_path):
    path = tmp_path / "blocks.yaml"
    path.write_text(
        "about: Blocks of three classes.\n"
        "settings: [stage_one.sampler.name=per_class, stage_one.sampler.classes=3, stage_one.sampler.images=5]\n"
        "search: {stage_one.loss.temperature: 'interval(0.1, 0.5)'}\n"
        "starts: {paper: [stage_one.loss.temperature=0.1]}\n"
    )
    line = tune.refused(space=str(path), **of(table))
    assert "stage_one.sampler.classes must be at most the 2 classes of the manifest" in line


def test_zero_trials_are_refused(tune):
    assert "--trials must be >= 1, but got 0" in tune.refused("--trials", "0")


def test_a_sweep_with_a_wrong_value_is_refused(tune):
    assert "KEY=VALUE" in tune.refused("stage_one.epochs=choice(1,2")


@pytest.mark.parametrize("what", ["run", "cache"])
def test_an_unwritable_folder_is_named(what, tune, photographs, tmp_path):
    (tmp_path / "file").write_text("no folder")
    if what == "run":
        line = tune.refused(run=tmp_path / "file" / "run", **of(photographs / "table.csv"))
    else:
        line = tune.refused(**of(photographs / "table.csv", f"cache={tmp_path / 'file' / 'cache'}"))
    assert str(tmp_path / "file" / what) in line
    assert "must be writable" in line
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.fixture
def prepared(tune, photographs):
    """A study on the photographs, as `prepare` leaves it."""
    settings = DataSettings(source="csv", path=str(photographs / "table.csv"))
    manifest = load_manifest(settings, tune.cache)
    store, _ = build_store(manifest, SIZE, tune.cache)
    folds = make_folds(manifest, FoldSettings())
    overrides = tune.words(**of(photographs / "table.csv"))[5:]
    facts = run_facts(
        manifest,
        folds,
        tune.cache,
        pixels=data_digest(manifest, {str(SIZE): store}, {}),
        space="supcon",
        content_of_the_space=load_space("supcon", overrides).digest,
        overrides=tuple(text for text in overrides if not text.startswith("cache=")),
    )
    return Run.create(tune.run, manifest, folds, facts)


def test_a_folder_with_a_study_is_not_overwritten(prepared, tune, photographs):
    line = tune.refused(**of(photographs / "table.csv"))
    assert f"{prepared.folder} has a study: add --resume" in line


def test_a_study_is_not_resumed_with_other_rows(prepared, tune, photographs, table):
    table.write_text(
        table.read_text().replace("3.png,benign", "3.png,malignant").replace("2.png,benign", "2.png,malignant")
    )
    line = tune.refused("--resume", **of(table))
    assert f"--resume must find the manifest that {prepared.folder} was started with" in line


def test_a_study_is_not_resumed_with_other_pixels_settings_or_folds(prepared, tune, photographs, table):
    Image.new("RGB", (SIZE, SIZE)).save(table.parent / "0.png")
    assert "--resume must find the pixels" in tune.refused("--resume", **of(table))
    assert "--resume must find the folds" in tune.refused("--resume", "folds.seed=5", **of(photographs / "table.csv"))
    line = tune.refused("--resume", "stage_one.epochs=3", **of(photographs / "table.csv"))
    assert "--resume must find the overrides" in line


def test_a_study_is_not_resumed_with_another_space_or_other_weights(prepared, tune, photographs):
    facts = read_json(prepared.folder / "run.json")
    for name in ("content_of_the_space", "initial_weights"):
        write_json(prepared.folder / "run.json", facts | {name: "0123456789abcdef"})
        line = tune.refused("--resume", **of(photographs / "table.csv"))
        noun = name.replace("_", " ")
        assert (
            f"--resume must find the {noun} that {prepared.folder} was started with, 0123456789abcdef, but got" in line
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metric=macro_f2"], "metric must be a known name, but got 'macro_f2'; did you mean"),
        (["metric=auc@benin"], "the class in 'auc@benin' must be a known name, but got 'benin'; did you mean benign?"),
        (["metric=auc"], "metric auc must be written auc@CLASS"),
        (["metric=pauc@malignant:80"], "must be in [0, 1), but got 80"),
        (["metric=choice(macro_f1,kappa)"], "a search must be over settings of a recipe, but got metric"),
        (["metric=null"], "metric must be a text, but got None"),
        (["metric="], "metric must be a known name, but got ''"),
        (["--require", "sensitivity@malignant=0.9"], "a requirement must be METRIC>=BOUND"),
        (["--require", "sensitivity@malignnt>=0.9"], "did you mean malignant?"),
        (["--require", "sensitivity@malignant>=9"], "must be in [0, 1], but got '9'"),
        (["--require", "log_loss>=0.9"], "write log_loss<=0.9"),
        (["--require", "it's wrong\\"], "a requirement must be METRIC>=BOUND"),
        (["require=macro_f1>=0.5"], "an override must be KEY=VALUE"),
        (["require=macro_f1"], "require must be a list"),
    ],
)  # fmt: skip
def test_a_goal_that_cannot_be_read_is_refused_before_an_image_is_decoded(words, message, tune, photographs):
    assert message in tune.refused(*words, **of(photographs / "table.csv"))
    assert not (tune.cache / "images").exists() and not list(tune.cache.glob("**/*.npy"))


def test_a_metric_that_a_part_of_the_rows_does_not_define_is_refused(tune, table):
    head, *lines = table.read_text().splitlines()
    # Of three lesions in turn, the first is malignant, and the second is in the first fold.
    folds = ["0" if lesion % 3 == 1 else ("1", "2", "test")[lesion // 3 % 3] for lesion in np.arange(60) // 2]
    rows = [f"{line},{fold}" for line, fold in zip(lines, folds, strict=True)]
    table.write_text("\n".join([f"{head},fold", *rows]) + "\n")
    line = tune.refused("metric=auc@malignant", "folds.column=fold", **of(table))
    assert "auc@malignant must be defined on each part of the rows, but fold 0 has only benign: " in line


def test_a_study_that_is_resumed_by_another_metric_says_how_to_rank_it_anew(prepared, tune, photographs):
    where = of(photographs / "table.csv")
    line = tune.refused("--resume", "metric=kappa", **where)
    assert "--resume must find the metric that" in line
    assert line.endswith(f"but got kappa: raysk leaderboard {tune.run} --metric kappa ranks a finished study anew")
    line = tune.refused("--resume", "--require", "kappa>=0.5", **where)
    assert "--resume must find the requirements that" in line
    assert "but got kappa>=0.5" in line


def test_an_address_without_a_cluster_is_refused(prepared, tune, photographs):
    words = tune.words("--resume", "--address", "127.0.0.1:1", **of(photographs / "table.csv"))
    assert main(words) == 2
    errors = tune.capfd.readouterr().err
    assert errors.startswith("raysk: --address must be the address of a running Ray cluster, but got '127.0.0.1:1'")
    assert len(errors.splitlines()) == 1


def test_debug_shows_the_traceback():
    words = [sys.executable, "-m", "raysk.cli", "--debug", "tune", "--space", "nope"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "ConfigError: a search space must be a known name" in done.stderr


def test_a_folder_that_is_not_a_run_has_no_leaderboard(tmp_path, capfd):
    assert main(["leaderboard", str(tmp_path)]) == 2
    assert capfd.readouterr().err == (
        f"raysk: {tmp_path / 'leaderboard.json'} must exist, but does not: check that this is a run directory\n"
    )


@pytest.mark.parametrize("words", [["leaderboard"], ["recipe"], ["train", "recipe.yaml", "--run"]])
@pytest.mark.parametrize("folder", ["s3://bucket/study", ""])
def test_commands_that_read_a_run_refuse_other_than_local_folders(words, folder, capfd):
    assert main([*words, folder, *["1"] * (words == ["recipe"])]) == 2
    assert capfd.readouterr().err.startswith(f"raysk: a run directory must be a local folder, but got {folder!r}: ")


def test_a_broken_leaderboard_is_named(tmp_path, capfd):
    for content in ("{", "[]", '{"rows": [{}]}'):
        (tmp_path / "leaderboard.json").write_text(content)
        assert main(["leaderboard", str(tmp_path)]) == 2
        errors = capfd.readouterr().err
        assert errors.startswith(f"raysk: {tmp_path / 'leaderboard.json'} must hold ")
        assert len(errors.splitlines()) == 1


def test_an_unknown_leaderboard_format_lists_the_known_formats(tmp_path, capfd):
    assert main(["leaderboard", str(tmp_path), "--format", "pdf"]) == 2
    line = capfd.readouterr().err
    assert line.startswith("raysk: leaderboard format must be a known name, but got 'pdf'; known: csv, html, json, md")


def test_overrides_may_be_on_both_sides_of_an_option(tune):
    assert "did you mean stage_one.epochs" in tune.refused("--trials", "3", "stage_one.epoch=5")
    assert "did you mean stage_one.epochs" in tune.refused("stage_one.epoch=5", "--trials", "3", "seed=1")


@pytest.mark.parametrize(
    "words", [[], ["tune"], ["tune", "--space", "supcon", "--trails", "3"], ["spaces", "x", "y"], ["tnue"]]
)
def test_an_unknown_command_prints_the_usage(words, capfd):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: raysk" in capfd.readouterr().err


def test_the_spaces_are_listed_with_their_descriptions(capfd):
    assert main(["spaces"]) == 0
    assert "supcon: SuperCon (Chen, Zhuang, Chang 2022)" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["spaces", "supcon"], "\n# ---- included: controls ----\n"),
        (["parts", "focal"], "| `focal` | Focal loss"),
        (["parts", "cosine"], "### Schedules"),
        (["config", "stage_two"], "epochs: 20 "),
        (["config", "stage_two.loss", "stage_two.loss.name=focal", "stage_two.loss.gamma=3"], "\ngamma: 3"),
        (["config", "--space", "focal", "stage_two"], "\nfrozen: false "),
    ],
)
def test_one_space_part_or_node_is_shown(words, part, capfd):
    assert main(words) == 0
    assert part in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spaces", "./supcom.yaml"], "a search space must be a name or a file, but ./supcom.yaml is no file: correct"),
        (["spaces", "supcom"], "a search space must be a known name, but got 'supcom'; did you mean supcon?"),
        (["parts", "focl"], "a part must be a known name, but got 'focl'; did you mean focal"),
        (["config", "stage_too"], "'stage_too'; did you mean stage_two or stage_one?"),
        (["config", "stage_two.los"], "'stage_two.los'; did you mean stage_two.loss"),
        (["config", "seed"], "a part of the configuration must have settings, but seed is 0: name its parent"),
        (["config", "folds", "data"], "config must print one part, but got folds and data: name one"),
        (["config", "folds.kk=3"], "'folds.kk'; did you mean folds.k"),
    ],
)
def test_a_request_that_cannot_be_shown_is_refused_in_one_line(words, message, capfd):
    assert main(words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


@pytest.fixture
def finished(tmp_path):
    """A folder with a leaderboard of three megabytes, which no pipe holds."""
    row = {"name": "n", "kind": "one-stage", "scores": {"test_macro_f1": 0.5}, "chosen_on": "", "scored_on": "",
           "seconds": 1.0, "images": 1, "commit": "", "command": "raysk tune", "settings": "x" * 9999}  # fmt: skip
    rows = [row | {"key": f"k{number}"} for number in range(300)]
    write_json(tmp_path / "leaderboard.json", {"rows": rows, "class_names": ["a"], "meta": {}, "tables": []})
    return tmp_path


def test_a_closed_pipe_is_no_traceback(finished):
    words = [sys.executable, "-m", "raysk.cli", "leaderboard", str(finished)]
    # Unbuffered, Python drops the rest of a write without an error.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"# Leaderboard\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_an_exit_for_another_reason_is_not_taken_for_a_closed_pipe(monkeypatch):
    def leave(*_):
        raise SystemExit(15)

    monkeypatch.setattr("raysk.spaces.files.list_spaces", leave)
    with pytest.raises(SystemExit) as caught:
        main(["spaces"])
    assert caught.value.code == 15


def test_a_pipe_that_is_closed_from_the_start_is_no_traceback():
    for words in (["spaces"], ["parts"], ["data", "show"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "raysk.cli", *words], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b""), words


def test_output_that_is_closed_or_has_no_room_is_no_traceback(finished):
    words = [sys.executable, "-m", "raysk.cli", "leaderboard", str(finished)]
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *words], cwd=ROOT, stderr=subprocess.PIPE, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "raysk: the output must have room, but its disk is full: free space\n")


def in_terminal(*words):
    """Returns (status, output) of a command whose output is a terminal."""
    main_end, terminal = os.openpty()
    done = subprocess.Popen([sys.executable, "-m", "raysk.cli", *words], cwd=ROOT, stdout=terminal, stderr=terminal)
    os.close(terminal)
    output = b""
    with suppress(OSError):  # which is how the end of a terminal reads
        while block := os.read(main_end, 65_536):
            output += block
    os.close(main_end)
    return done.wait(), output


def test_a_terminal_gets_no_binary_format_but_a_remedy(finished):
    assert in_terminal("leaderboard", str(finished), "--format", "parquet") == (
        2,
        b"raysk: --format parquet must go to a file, but got a terminal: add > leaderboard.parquet\r\n",
    )
    assert in_terminal("leaderboard", str(finished), "--format", "csv")[0] == 0


@pytest.fixture
def completed(tmp_path):
    """Returns the completions of a line, as bash asks for them."""

    def words(line):
        done = subprocess.run(
            [sys.executable, "-c", "from raysk.cli.main import program; program()"],
            env=os.environ | {
                "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n",
                "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "words"), "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
            },
            cwd=ROOT, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {word.strip() for word in (tmp_path / "words").read_text().split("\n")} - {""}

    return words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("raysk lead", {"leaderboard"}),
        ("raysk tune --sp", {"--space"}),
        ("raysk tune --space supc", {"supcon"}),
        ("raysk spaces foc", {"focal", "focal_ablation"}),
        ("raysk leaderboard x --format pa", {"parquet"}),
        ("raysk data ", {"show", "prepare", "audit"}),
    ],
)
def test_the_shell_completes_words(line, words, completed):
    assert completed(line) >= words


def test_the_shell_completes_the_rows_of_a_run(finished, tmp_path, completed):
    board = read_json(finished / "leaderboard.json")
    board["rows"] = [board["rows"][0] | {"key": name, "name": name, "kind": kind} for name, kind in (
        ("paper", "two-stage"), ("ensemble: greedy", "ensemble"), ("cross_entropy", "one-stage"))]  # fmt: skip
    write_json(finished / "leaderboard.json", board)
    assert completed(f"raysk recipe {finished} ") >= {"paper", "cross_entropy"}
    assert completed(f"raysk recipe {finished} pa") == {"paper"}
    assert completed(f"raysk recipe {finished} en") == set(), "an ensemble has no recipe"
    assert "paper" not in completed(f"raysk recipe {tmp_path / 'nothing'} "), "a folder without a board is no error"


def test_the_shell_can_tell_that_raysk_completes():
    with Path(raysk.__file__).with_name("cli").joinpath("main.py").open("rb") as file:
        assert b"PYTHON_ARGCOMPLETE_OK" in file.read(1024)


def test_the_version_is_printed(capfd):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capfd.readouterr().out == f"raysk {raysk.__version__}\n"
