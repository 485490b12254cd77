"""Whole studies, as a user types them: real processes, real Ray, real kills. One Ray session at a time."""

import json
import os
import re
import shutil
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
from optuna.trial import TrialState

from raysk.cli.main import main
from raysk.data.store.chunks import file_system
from raysk.evaluation.ensemble import Ensemble
from raysk.evaluation.leaderboard import Leaderboard
from raysk.recipe import Job, Recipe
from raysk.reranking import rerank
from raysk.run import Run
from raysk.search.storage import open_study
from raysk.search.trial_records import TrialRecord
from raysk.training.checkpoints import ProgressCheckpoint
from tests.publishers import two_publishers
from tests.search.commands import ROW, begun, finished, lane_lines, raysk

# A study takes half a minute on an idle machine; a busy one may take its time.
pytestmark = [pytest.mark.timeout(1500), pytest.mark.ray]

SMALL = ["data.size=150", "image_size=32", "model.backbone=test_resnet", "test_views=none", "stage_two.epochs=3"]
NUM_FOLDS = 2
PAPER = "supcon: paper, 2 epochs"
NAMED = {"plain", PAPER, "supcon: from_scratch", "focal: paper", "focal: no_weights"}
PLAIN = re.compile(r"(\d+ images: |run directory: | *\d+:\d\d  |the study ended early)")

# `diverging` has the largest rate and decay that are allowed: its weights grow a thousandfold with every step.
FAILING = """
about: One start that trains for a while, one control that cannot.
settings: [stage_one.epochs=12, stage_one.batch_size=32, stage_two.batch_size=32, stage_two.search=4]
search:
  stage_one.loss.temperature: tag(log, interval(0.03, 0.5))
starts:
  slow: [stage_one.loss.temperature=0.1]
controls:
  diverging:
    - stage_one=null
    - stage_two.frozen=false
    - stage_two.epochs=20
    - stage_two.optimizer.name=sgd
    - stage_two.optimizer.lr=100
    - stage_two.optimizer.weight_decay=10
    - stage_two.optimizer.schedule=constant
"""


TOURNAMENT = """
about: Two methods that compete, and a control.
settings: [stage_two.epochs=1]
controls:
  plain: [stage_one=null, stage_two.frozen=false, stage_two.view=medium]
families: [supcon, focal]
"""


def is_plain(output):
    """Whether all lines before the leaderboard are raysk's own."""
    lines = output.partition("\nLeaderboard: ")[0].splitlines()
    return all(PLAIN.match(line) for line in lines) and "\x1b" not in output


@dataclass
class Story:
    """What a study went through."""

    run: Path
    status: int
    output: str
    errors: str
    before: set
    board: Leaderboard
    extra: dict

    def again(self):
        """How often the jobs that were done before the interruption were begun, in all."""
        counts = begun(self.run)
        return {job: counts[job] for job in self.before}


@pytest.fixture(scope="module")
def killed(tmp_path_factory, cache):
    """A tournament on the collections of two publishers, killed while it searches a stage two, and then resumed."""
    folder = tmp_path_factory.mktemp("killed")
    run, space = folder / "run", folder / "tournament.yaml"
    space.write_text(TOURNAMENT)
    ham, isic = two_publishers(folder, num_images=150, size=32)
    data = ["data=[ham10000,isic2019]", f"data.ham10000.path={ham}", f"data.isic2019.path={isic}", "data.map=usual"]
    small = [*SMALL[1:-1], "epochs=2", "batch_size=16", "stage_two.search=4", f"folds.k={NUM_FOLDS}"]
    words = ["tune", "--space", space, "--trials", "8", "--run", run, *small, *data, f"cache={cache}"]
    with raysk(folder, *words) as command:
        command.wait_for(lambda: any("-search-" in work for work in begun(run)))
        command.kill()
    before = finished(run)
    with raysk(folder, *words, "finalists=2", "seeds=2", "--resume") as command:
        status, output, errors = command.end()
    return Story(run, status, output, errors, before, Leaderboard.read(run / "leaderboard.json"), {})


def test_a_killed_study_resumes_to_its_end(killed):
    assert (killed.status, killed.errors) == (0, "")
    states = Counter(row["state"] for row in journal_states(killed.run))
    assert states["RUNNING"] == 0
    assert states["COMPLETE"] + states["PRUNED"] == 7, "eight trials are not divisible among two families: one is left"
    assert len(killed.before) >= NUM_FOLDS, "a search of stage two follows all folds"


def test_no_job_that_was_done_before_the_kill_is_repeated(killed):
    assert set(killed.again().values()) == {1}
    for row in killed.board.rows:
        if row.kind != "ensemble":
            jobs = {f"{row.key}-fold{fold}-{part}" for fold in range(NUM_FOLDS) for part in ("held_out", "test")}
            assert jobs <= finished(killed.run)


def test_the_output_is_plain_and_rays_chatter_is_in_its_log(killed):
    assert is_plain(killed.output), killed.output
    lines = killed.output.partition("\nLeaderboard: ")[0].splitlines()
    assert [line.split("  ")[-1] for line in lines if "Ray" in line] == ["starting Ray"]
    assert "local Ray instance" in (killed.run / "logs" / "ray.log").read_text()


def test_the_leaderboard_has_the_controls_and_the_ensembles_with_intervals(killed):
    names = {row.name for row in killed.board.rows}
    assert names >= {*NAMED, "ensemble: greedy", "ensemble: plain average"}, killed.board.meta
    kinds = {row.name: row.kind for row in killed.board.rows}
    assert (kinds[PAPER], kinds["plain"], kinds["ensemble: greedy"]) == ("two-stage", "one-stage", "ensemble")
    for row in killed.board.rows:
        for score in ("test_macro_f1", "test_balanced_accuracy"):
            assert 0 <= row.scores[f"{score}_low"] < row.scores[f"{score}_high"] <= 1, row.name
        assert row.scores["oof_macro_f1_sd"] >= 0
        assert row.scored_on == "locked test part"
        assert row.seconds > 0
        again = (
            f"raysk tune --space {killed.run.parent}/tournament.yaml --trials 8 "
            if row.kind == "ensemble"
            else f"raysk recipe {killed.run} {row.key}"
        )
        assert row.command.startswith(again)
    chosen = {row.name: row.chosen_on for row in killed.board.rows}
    assert (chosen[PAPER], chosen["ensemble: greedy"]) == ("nothing", "held-out folds")


def test_every_frozen_encoder_was_searched_and_the_best_stage_two_has_a_row(killed):
    trials = {row["point"]: row for row in journal_states(killed.run)}
    searched = {name for name, row in trials.items() if row["search"]}
    assert searched >= {PAPER, "supcon: from_scratch"}
    assert all(name.startswith("supcon: ") for name in searched)
    rows = {row.name: row for row in killed.board.rows}
    for name in searched:
        found = Run.open(killed.run).search(trials[name]["search"])
        assert len(found.tried) == 4
        # The folds may choose better settings for one another than all of them together, whose scores are smoothed.
        assert 0 <= found.crossfit <= 1
        # Where nothing is better than the trial's own recipe, that one has the row already.
        assert found.kept[0] in {row.key for row in rows.values()}
    best = [row for row in killed.board.rows if row.name.endswith(" + stage two 1")]
    assert best
    for row in best:
        assert 0 <= row.scores["oof_macro_f1_crossfit"] <= 1
        assert row.chosen_on == "held-out folds, best of 4 stage-two settings"


def test_the_command_of_a_row_gives_it_again_to_the_last_digit(killed, tmp_path):
    row = next(row for row in killed.board.rows if row.name.endswith(" + stage two 1"))
    with raysk(tmp_path, "recipe", killed.run, row.key) as command:
        status, text, errors = command.end()
    assert (status, errors) == (0, "")
    (tmp_path / "recipe.yaml").write_text(text)
    with raysk(tmp_path, "train", "recipe.yaml", "--run", "run") as command:
        assert command.end()[0] == 0
    (again,) = Leaderboard.read(tmp_path / "run" / "leaderboard.json").rows
    same = {name: value for name, value in row.scores.items() if not name.endswith("_crossfit")}
    assert (again.key, again.scores) == (row.key, same)


def test_a_drawn_recipe_is_ranked_or_its_stop_is_told(killed):
    ranked, notes = {row.name for row in killed.board.rows}, killed.board.meta
    drawn = {row["family"]: row["point"] for row in journal_states(killed.run) if row["kind"] == "drawn"}
    assert drawn.keys() == {"supcon", "focal"}
    # What stands for a drawn encoder is the best stage two that was found on it.
    row_names = {drawn["supcon"]: f"{drawn['supcon']} + stage two 1", drawn["focal"]: drawn["focal"]}
    for name, row_name in row_names.items():
        assert (row_name in ranked) is not (f"not ranked: {name}" in notes)
    assert drawn["supcon"] not in ranked


def test_the_leaderboard_is_there_in_every_format_and_the_command_prints_them(killed, capfdbinary):
    read = {"csv": pyarrow.csv.read_csv, "parquet": pyarrow.parquet.read_table}
    for name in ("csv", "html", "json", "md", "parquet", "tex"):
        path = killed.run / f"leaderboard.{name}"
        assert main(["leaderboard", str(killed.run), "--format", name]) == 0
        assert capfdbinary.readouterr() == (path.read_bytes(), b"")
        if name in read:
            assert read[name](path).column("name").to_pylist() == [row.name for row in killed.board.rows]
    assert killed.output.endswith(f"Files: {killed.run}/leaderboard.md, .csv, .html, .json, .parquet, .tex\n")


def test_the_ensemble_is_kept_and_made_of_recipes_with_all_folds(killed):
    ensemble = Ensemble.read(killed.run / "ensemble.json")
    kept = {row.key for row in killed.board.rows}
    for row in journal_states(killed.run):
        kept |= {row["recipe"], *(Run.open(killed.run).search(row["search"]).kept if row["search"] else ())}
    assert {member.recipe_key for member in ensemble.members} <= kept


def test_families_compete_with_equal_budgets(killed):
    families = Counter(row["family"] for row in journal_states(killed.run))
    assert families == {"": 1, "supcon": 3, "focal": 3}
    tables = {table.label: table for table in killed.board.tables}
    assert [line[:2] for line in tables["expected-best"].cells] == [("supcon", "3"), ("focal", "3")]
    assert {name for line in tables["significance"].cells for name in line[:2]} == {
        "supcon", "focal", "control plain",
    }  # fmt: skip


def test_the_winners_are_trained_with_another_seed_if_a_resume_asks_for_it(killed):
    tables = {table.label: table for table in killed.board.tables}
    assert [line[1] for line in tables["finalists"].cells] == ["2", "2"]
    (line,) = tables["seed-significance"].cells
    assert {*line[:2]} == {line[0] for line in tables["finalists"].cells}
    run = Run.open(killed.run)
    recipes = [run.recipe(path.stem) for path in (killed.run / "recipes").glob("*.json")]
    repeats = [recipe for recipe in recipes if recipe.seed == 1]
    assert len(repeats) == 2
    jobs = [Job(recipe, fold) for recipe in repeats for fold in range(NUM_FOLDS)]
    assert {job.id for job in jobs} | {job.for_test().id for job in jobs} <= finished(killed.run)


def test_the_rows_of_two_publishers_are_divided(killed):
    opened = Run.open(killed.run)
    assert set(opened.manifest.table.column("source").to_pylist()) == {"ham10000", "isic2019"}
    assert len(opened.manifest) == 150
    assert opened.manifest.class_names == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert len(opened.folds) == NUM_FOLDS
    assert killed.board.meta["folds"].startswith("2, and ")


def test_more_workers_than_the_cluster_can_run_are_refused_with_the_sum(tmp_path, cache):
    run = tmp_path / "run"
    with raysk(
        tmp_path, "tune", "--space", "supcon", "--workers", "999", "--run", run, *SMALL, f"cache={cache}"
    ) as study:
        status, _, errors = study.end()
    assert (status, len(errors.splitlines())) == (2, 1), errors
    assert errors.startswith("raysk: a lane must fit the cluster, but 999 workers x 1 CPU = 999 CPU is more")
    files = [path.name for path in run.rglob("*") if path.is_file()]
    assert files == ["ray.log"], "no study was started, so a second attempt needs no --resume"


@pytest.mark.soak
def test_files_that_cannot_be_written_end_a_study_and_count_against_no_recipe(tmp_path, cache):
    run = tmp_path / "run"
    small = [*SMALL, "stage_two.search=0", "epochs=2", f"cache={cache}"]
    words = ["tune", "--space", "supcon", "--trials", "2", "--run", run, *small]
    with raysk(tmp_path, *words) as command:
        command.wait_for((run / "run.json").exists)
        (run / "predictions").write_text("in the way of the folder")
        status, output, errors = command.end()
    assert status == 2, output
    (line,) = errors.splitlines()
    assert "must be writable, but Not a directory" in line and line.endswith("run the same command with --resume")
    assert not (run / "leaderboard.json").exists()
    (run / "predictions").unlink()
    with raysk(tmp_path, *words, "--resume") as command:
        status, output, errors = command.end()
    assert (status, errors) == (0, ""), output
    board = Leaderboard.read(run / "leaderboard.json")
    assert {row.name for row in board.rows} >= {"paper, 2 epochs", "from_scratch"}
    assert not [noun for noun in board.meta if noun.startswith("not ranked")]


@pytest.fixture(scope="module")
def troubled(tmp_path_factory, cache):
    """A study with a recipe that diverges, whose lane is killed during a job, and which Ctrl-C ends; then resumed.

    It searches by a metric of which less is better, with a requirement that no recipe meets after so little training.
    """
    folder = tmp_path_factory.mktemp("troubled")
    run, space = folder / "run", folder / "failing.yaml"
    space.write_text(FAILING)
    goal = ["metric=log_loss", "--require", "sensitivity@mel>=0.95"]
    words = ["tune", "--space", space, "--trials", "3", "--run", run, *SMALL, "folds.k=2", f"cache={cache}", *goal]
    extra = {}
    Recipe()  # Imports timm now: it takes seconds, in which the epochs would go by.
    with raysk(folder, *words) as command:
        path = command.wait_for(lambda: next(iter(run.glob("encoders/*/fold*.progress")), None))
        job = job_of(path, run)
        pid = next(pid for pid, what, name in lane_lines(run) if (what, name) == ("begin", job.id))
        os.kill(pid, signal.SIGKILL)
        extra |= {"job": job.id, "mark": mark(path, job.fold)}
        command.wait_for(lambda: job.id in finished(run))
        before = finished(run)
        os.killpg(command.process.pid, signal.SIGINT)  # As a terminal does: to all of the group at once.
        extra["interrupted"] = command.end()
        extra["left"] = command.left()
    with raysk(folder, *words, "--resume") as command:
        status, output, errors = command.end()
    return Story(run, status, output, errors, before, Leaderboard.read(run / "leaderboard.json"), extra)


def job_of(path, run):
    """Returns the job whose stage one keeps its progress in a file."""
    recipes = [Run.open(run).recipe(file.stem) for file in (run / "recipes").glob("*.json")]
    (recipe,) = [recipe for recipe in recipes if recipe.encoder_key == path.parent.name]
    return Job(recipe, int(path.stem.removeprefix("fold")))


def mark(path, fold):
    """Writes a loss into a progress file by which it is known again; returns (epochs done, the loss)."""
    key = path.parent.name
    saved = ProgressCheckpoint.read(path, key, fold)
    losses = [1234.5, *saved.facts["losses"][1:]]
    ProgressCheckpoint(key, fold, saved.facts | {"losses": losses}, saved.tensors).write(path)
    return saved.facts["epoch"], losses[0]


def test_ctrl_c_ends_in_order_and_names_resume(troubled):
    status, output, errors = troubled.extra["interrupted"]
    assert (status, errors) == (130, "")
    assert output.endswith("the study ended early: run the same command with --resume to continue\n")
    assert "ending after the present epochs" in output
    assert is_plain(output), output
    assert troubled.extra["left"] == [], "no process outlives the command"


def test_resume_finishes_what_ctrl_c_left(troubled):
    assert (troubled.status, troubled.errors) == (0, "")
    assert is_plain(troubled.output)
    states = Counter(row["state"] for row in journal_states(troubled.run))
    assert states["RUNNING"] == 0
    assert "slow" in {row.name for row in troubled.board.rows}
    assert set(troubled.again().values()) - {2} == {1}


def test_a_job_whose_worker_was_killed_goes_on_from_its_last_epoch(troubled):
    job, (epochs, loss) = troubled.extra["job"], troubled.extra["mark"]
    record = json.loads((troubled.run / "jobs" / f"{job}.json").read_text())
    losses = record["stage_one"]["losses"]
    assert 1 <= epochs < len(losses) == 12
    assert losses[0] == loss, "the epochs before the kill were trained again"
    assert max(losses[1:]) < 100


def test_no_other_job_is_repeated_when_a_worker_is_killed(troubled):
    counts = troubled.again()
    assert counts.pop(troubled.extra["job"]) == 2
    assert set(counts.values()) <= {1}


def test_a_recipe_that_diverges_fails_alone_and_the_leaderboard_says_why(troubled):
    reason = troubled.board.meta["not ranked: diverging"]
    assert reason.startswith("failed: the loss of stage two must be a number, but is ")
    assert "try a smaller stage_two.optimizer.lr than 100" in reason
    assert reason in (troubled.run / "leaderboard.md").read_text().replace("\\", "")
    assert "diverging: failed: the loss of stage two" in troubled.extra["interrupted"][1] + troubled.output
    assert "diverging" not in {row.name for row in troubled.board.rows}


def test_the_metric_and_the_requirement_are_those_of_the_study_to_its_end(troubled):
    run, board = Run.open(troubled.run), troubled.board
    assert (run.facts.metric, run.facts.requirements) == ("log_loss", ("sensitivity@mel>=0.95",))
    assert "metric=log_loss --require 'sensitivity@mel>=0.95'" in run.facts.repeating_command
    assert board.metric == "log_loss"
    losses = [row.honest_score("log_loss") for row in board.rows]
    assert losses == sorted(losses)
    study = open_study(troubled.run / "study.journal")
    assert study.direction.name == "MINIMIZE"
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        assert trial.constraints.keys() == {"sensitivity@mel>=0.95"}
    for row in board.rows:
        (check,), (point,) = row.requirements, row.operating_points
        assert check.requirement == "sensitivity@mel>=0.95"
        assert point.threshold is not None
        if row.kind != "ensemble":
            assert row.scores["oof_log_loss"] == pytest.approx(run.fold_scores(row.key)[0].mean())
    assert "Requirement sensitivity@mel>=0.95" in board.meta
    assert "Leaderboard: " in troubled.output and ", by log loss out of fold" in troubled.output
    by_f1 = rerank(run, "macro_f1")
    scores = {row.key: row.scores["oof_macro_f1"] for row in by_f1.rows}
    assert scores[by_f1.rows[0].key] == max(scores.values())


def journal_states(run):
    """The trials of the study that count: those that a later driver asked for again are left out."""
    trials = open_study(run / "study.journal").get_trials()
    return [
        {"state": trial.state.name, **TrialRecord.of(trial).to_plain()}
        for trial in trials
        if trial.state is not TrialState.FAIL or TrialRecord.of(trial).reason is not None
    ]


@pytest.mark.soak
def test_a_lane_of_two_workers_survives_the_death_of_either(tmp_path, cache):
    run, space = tmp_path / "run", tmp_path / "failing.yaml"
    space.write_text(FAILING)
    Recipe()
    words = ["tune", "--space", space, "--trials", "2", "--workers", "2", "--run", run, *SMALL, f"cache={cache}"]
    with raysk(tmp_path, *words) as command:
        for rank in (1, 0):
            path = command.wait_for(lambda: next(iter(run.glob("encoders/*/fold*.progress")), None))
            job = job_of(path, run)
            log = (run / "logs" / f"lane0-rank{rank}.log").read_text().splitlines()
            pid = next(int(m[1]) for m in map(ROW.match, reversed(log)) if m and (m[2], m[3]) == ("begin", job.id))
            os.kill(pid, signal.SIGKILL)
            command.wait_for(lambda job=job: job.id in finished(run))
        status, output, errors = command.end()
    assert (status, errors) == (0, ""), output
    records = [json.loads((run / "jobs" / f"{name}.json").read_text()) for name in finished(run)]
    assert {record["workers"] for record in records} == {2}
    assert {row.name for row in Leaderboard.read(run / "leaderboard.json").rows} >= {"slow", "ensemble: greedy"}
    assert "not ranked: diverging" in Leaderboard.read(run / "leaderboard.json").meta


@pytest.mark.soak
def test_a_time_budget_that_is_too_short_says_so_and_a_resume_goes_on(tmp_path, cache):
    run = tmp_path / "run"
    words = ["tune", "--space", "supcon", "--trials", "2", "--run", run, *SMALL, "epochs=2", f"cache={cache}"]
    with raysk(tmp_path, *words, "--time-budget", "0.1") as command:
        status, output, errors = command.end()
    assert (status, errors) == (
        2,
        "raysk: a study must have a recipe with all folds, but has none: the time budget was too short\n",
    )
    assert "the time budget is spent" in output
    with raysk(tmp_path, *words, "--resume") as command:
        status, output, errors = command.end()
    assert (status, errors) == (0, "")
    assert {row.name for row in Leaderboard.read(run / "leaderboard.json").rows} >= {"paper, 2 epochs", "from_scratch"}


@pytest.mark.soak
def test_a_study_that_is_kept_in_object_storage_goes_on_on_another_machine(tmp_path, s3):
    small = [*SMALL, "epochs=2", "stage_two.search=8", "folds.k=2", "folds.repeats=2"]
    words = ["tune", "--space", "supcon", "--trials", "2", "--run", s3, *small]
    with raysk(tmp_path, *words, f"cache={tmp_path / 'first'}") as command:
        command.wait_for(lambda: next(iter((tmp_path / "first" / "runs").glob("*/jobs/*.json")), None))
        command.process.send_signal(signal.SIGINT)
        status, output, errors = command.end()
    assert (status, errors) == (130, ""), output
    first = next((tmp_path / "first" / "runs").iterdir())
    done = finished(first)
    shutil.rmtree(tmp_path / "first")
    with raysk(tmp_path, *words, f"cache={tmp_path / 'second'}") as command:
        assert command.end()[0] == 2, "it is there already, and not to be resumed"
    with raysk(tmp_path, *words, "--resume", f"cache={tmp_path / 'second'}") as command:
        status, output, errors = command.end()
    assert (status, errors) == (0, ""), output
    second = next((tmp_path / "second" / "runs").iterdir())
    assert json.loads((second / "leaderboard.json").read_text())["meta"]["folds"].startswith("2, 2 times, and ")
    times = begun(second)
    assert done and all(times[job] == 1 for job in done), "the logs came along, and no finished job is repeated"
    files, root = file_system(s3)
    with files.open_input_stream(f"{root}/leaderboard.json") as stream:
        assert stream.read() == (second / "leaderboard.json").read_bytes()


@pytest.mark.soak
def test_a_study_of_masks_races_searches_and_ensembles(tmp_path, cache):
    run = tmp_path / "run"
    small = ["data.size=150", "image_size=32", "model.backbone=test_resnet", "epochs=3", "folds.k=2", f"cache={cache}"]
    words = ["tune", "--space", "segmentation", "--trials", "4", "--run", run, *small]
    with raysk(tmp_path, *words) as command:
        status, output, errors = command.end()
    assert (status, errors) == (0, ""), output
    assert ", by Dice out of fold" in output
    board = Leaderboard.read(run / "leaderboard.json")
    names = {row.name for row in board.rows}
    assert names >= {"paper, 3 epochs", "from_scratch", "ensemble: greedy", "ensemble: plain average"}
    assert all(0.3 < row.scores["test_dice_low"] <= row.scores["test_dice"] for row in board.rows)
    assert (run / "masks.png").exists()
    assert Ensemble.read(run / "ensemble.json").cross_fitted_score == pytest.approx(
        next(row for row in board.rows if row.name == "ensemble: greedy").scores["oof_dice"], abs=0.02
    )
