"""Studies on two real Ray nodes that are taken away in the middle of a job: what survives what."""

import os
import signal
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.cluster_utils import Cluster

from raysk.artifacts import read_json
from raysk.evaluation.leaderboard import Leaderboard
from raysk.recipe import Job
from raysk.records import JobRecord
from raysk.run import Run
from raysk.training.job import run_job
from raysk.training.world import World
from tests.run_facts import run_facts
from tests.search.commands import begun, finished, lane_lines, raysk

pytestmark = [pytest.mark.timeout(1500), pytest.mark.ray]

SPACE = """
about: One start that trains for a while, and a control.
settings: [stage_one.epochs=25, stage_one.batch_size=32, stage_two.batch_size=32, stage_two.search=4]
search:
  stage_one.loss.temperature: tag(log, interval(0.03, 0.5))
starts:
  slow: [stage_one.loss.temperature=0.1]
controls:
  plain: [stage_one=null, stage_two.frozen=false, stage_two.epochs=5]
"""
SMALL = ["--trials", "2", "data.size=150", "image_size=32", "model.backbone=test_resnet", "test_views=none"]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def ray_nodes(*others, head_cpus=1):
    """A head without a dashboard, and other nodes, on this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="raysk-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        # After which Ray ends whoever cannot reach the GCS; a minute unless it is set.
        patch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
        Path(folder, "ray").mkdir()
        cluster = Cluster(
            initialize_head=True, head_node_args=NODE | {"num_cpus": head_cpus, "include_dashboard": False}
        )
        try:
            for node in others:
                cluster.add_node(**node)
            yield cluster
        finally:
            cluster.shutdown()


def parent_of(pid):
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def raylet_of(node):
    (info,) = node.all_processes["raylet"]
    return info.process.pid


def pids_of(title, raylet):
    """The processes of a raylet with this title."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(f"ray::{title}".encode()) and parent_of(path.parent.name) == raylet:
                found.append(int(path.parent.name))
    return found


def at_work(run, node):
    """The job that a node is in the middle of: one epoch of it has been kept."""
    job = None
    for pid, what, name in lane_lines(run):
        if parent_of(pid) == raylet_of(node):
            job = name if what == "begin" else None
    key, _, rest = (job or "").partition("-fold")
    if not rest.endswith("-held_out"):
        return None
    recipe = Run.open(run).recipe(key)
    progress = run / "encoders" / str(recipe.encoder_key) / f"fold{rest.partition('-')[0]}.progress"
    return job if progress.exists() else None


@dataclass
class Story:
    """What a study went through."""

    run: Path
    status: int
    output: str
    errors: str
    done_before: set

    def check(self, **more_often):
        """Checks that the study ended well, and that no job was begun again but those that are named."""
        assert (self.status, self.errors) == (0, ""), self.output
        names = {row.name for row in Leaderboard.read(self.run / "leaderboard.json").rows}
        assert names >= {"slow", "plain", "ensemble: greedy"}
        times = begun(self.run)
        assert {times[job] for job in self.done_before} <= {1}, "what was done is not repeated"
        assert {job: count for job, count in times.items() if count > 1} == more_often

    def check_digits(self, folder):
        """Checks that every job has the scores and probabilities that it has in a process of its own, without Ray."""
        run = Run.open(self.run)
        alone = Run.create(folder / "alone", run.manifest, run.folds, run_facts(run.manifest, run.folds, run.cache))
        records = {path.stem: JobRecord.read(path) for path in self.run.glob("jobs/*.json")}
        jobs = [Job(run.recipe(record.recipe), record.fold, record.part) for record in records.values()]
        for job in sorted(jobs, key=lambda job: job.part == "test"):
            with one_thread():
                run_job(job, alone, World(0, 1, torch.device("cpu")), lambda progress: None)
            here, there = (run.predictions(job.recipe.key, job.fold, job.part) for run in (run, alone))
            assert np.array_equal(here.probabilities, there.probabilities), job.id
            assert records[job.id].score == alone.record(job).score


@contextmanager
def one_thread():
    """As each worker has here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def study(tmp_path, cache):
    """Gives the words of a study, and the folder of its run."""
    (tmp_path / "two.yaml").write_text(SPACE)
    run = tmp_path / "run"

    def words(cluster, *more):
        return ["tune", "--space", "two.yaml", "--address", cluster.address, "--run", run, *SMALL, *more,
                f"cache={cache}"]  # fmt: skip

    return words, run


def driver_of(command):
    """The child of the command's process."""
    (pid,) = (pid for pid in command.pids() if parent_of(pid) == command.process.pid)
    return pid


@pytest.mark.soak
def test_the_broker_and_a_node_are_killed_and_a_second_driver_is_refused(tmp_path, study):
    words, run = study
    with ray_nodes(NODE) as cluster, raysk(tmp_path, *words(cluster)) as command:
        (second,) = cluster.worker_nodes
        job = command.wait_for(lambda: at_work(run, second))
        done_before = finished(run)
        # All at once: the driver hangs, and meanwhile the broker and the node are killed.
        os.kill(driver_of(command), signal.SIGSTOP)
        (broker,) = pids_of("Broker", raylet_of(cluster.head_node))
        os.kill(broker, signal.SIGKILL)
        cluster.remove_node(second, allow_graceful=False)
        with raysk(tmp_path, *words(cluster, "--resume")) as other:
            refused = other.end()
        os.kill(driver_of(command), signal.SIGCONT)
        story = Story(run, *command.end(), done_before)
        story.check(**{job: 2})
        assert "is lost, a worker or its node is gone: its job goes back to the queue" in story.output
        assert "waits for room: it needs 1 CPU" in story.output
        status, _, errors = refused
        assert (status, len(errors.splitlines())) == (2, 1), "also while the first one hangs"
        assert "must be a folder that no other raysk uses" in errors
        (tmp_path / "run").rename(tmp_path / "first")
        story.run = tmp_path / "first"
        # The head is left, and loses its GCS as soon as another study has begun.
        with raysk(tmp_path, *words(cluster)) as command:
            command.wait_for(lambda: "starting 1 lane: " in command.out.read_text())
            cluster.head_node.kill_gcs_server(check_alive=False)
            status, output, errors = command.end()
        assert status == 3, output
        log = run / "logs" / "ray.log"
        assert errors == (
            "raysk: a study must reach its end, but Ray's GCS is gone (status 1): "
            f"see {log}, then run the same command with --resume\n"
        )
    story.check_digits(tmp_path)


@pytest.mark.soak
def test_a_node_that_is_shut_down_in_order_costs_its_job_an_epoch(tmp_path, study):
    words, run = study
    with ray_nodes(NODE) as cluster, raysk(tmp_path, *words(cluster)) as command:
        (second,) = cluster.worker_nodes
        job = command.wait_for(lambda: at_work(run, second))
        done_before = finished(run)
        cluster.remove_node(second, allow_graceful=True)
        story = Story(run, *command.end(), done_before)
    story.check(**{job: 2})
    story.check_digits(tmp_path)


@pytest.mark.soak
def test_a_head_needs_no_cpu(tmp_path, study):
    words, run = study
    with ray_nodes(NODE, head_cpus=0) as cluster, raysk(tmp_path, *words(cluster)) as command:
        story = Story(run, *command.end(), set())
    story.check()
    assert "starting 1 lane: a lane is 1 worker x 1 CPU = 1 CPU, of 1 CPU and 0 GPU" in story.output


@pytest.mark.soak
def test_a_node_that_joins_later_gets_a_lane(tmp_path, study):
    words, run = study
    with ray_nodes() as cluster, raysk(tmp_path, *words(cluster)) as command:
        command.wait_for(lambda: begun(run))
        cluster.add_node(**NODE)
        story = Story(run, *command.end(), set())
    story.check()
    assert "starting 1 lane: " in story.output
    assert "the cluster has grown: 2 lanes" in story.output
    assert {path.name for path in (run / "logs").glob("lane*")} == {"lane0-rank0.log", "lane1-rank0.log"}


@pytest.mark.soak
@pytest.mark.parametrize("graceful", [False, True], ids=["killed", "shut down"])
def test_a_ddp_group_over_both_nodes_waits_for_a_node_and_ends_as_if_undisturbed(tmp_path, study, graceful):
    words, run = study
    with ray_nodes(NODE) as cluster:
        with raysk(tmp_path, *words(cluster, "--workers", "2")) as command:
            assert command.end()[0] == 0
        undisturbed = {path.stem: read_json(path).get("score") for path in run.glob("jobs/*.json")}
        run.rename(tmp_path / "undisturbed")
        with raysk(tmp_path, *words(cluster, "--workers", "2")) as command:
            (second,) = cluster.worker_nodes
            job = command.wait_for(lambda: at_work(run, cluster.head_node) or at_work(run, second))
            done_before = finished(run)
            cluster.remove_node(second, allow_graceful=graceful)
            command.wait_for(lambda: "no lane has room" in command.out.read_text())
            cluster.add_node(**NODE)
            story = Story(run, *command.end(), done_before)
    story.check(**{job: 2})
    assert "waiting for a node with 2 CPU, 0:0" in story.output
    assert {path.stem: read_json(path).get("score") for path in run.glob("jobs/*.json")} == undisturbed


@pytest.mark.soak
def test_a_study_whose_gcs_was_killed_goes_on_in_another_cluster(tmp_path, study):
    words, run = study
    with ray_nodes(NODE) as cluster, raysk(tmp_path, *words(cluster)) as command:
        command.wait_for(lambda: finished(run))
        cluster.head_node.kill_gcs_server(check_alive=False)
        assert command.end()[0] == 3
    done_before = finished(run)
    interrupted = set(begun(run)) - done_before
    with ray_nodes(NODE) as cluster, raysk(tmp_path, *words(cluster, "--resume")) as command:
        story = Story(run, *command.end(), done_before)
    times = begun(run)
    story.check(**{job: times[job] for job in interrupted if times[job] > 1})
    story.check_digits(tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("title", ["TrainController", "RayTrainWorker", "ResourceTrainable"])
def test_a_process_that_is_killed_costs_no_finished_job(tmp_path, study, title):
    words, run = study
    with ray_nodes(NODE) as cluster, raysk(tmp_path, *words(cluster)) as command:
        job = command.wait_for(lambda: at_work(run, cluster.head_node))
        done_before = finished(run)
        os.kill(pids_of(title, raylet_of(cluster.head_node))[0], signal.SIGKILL)
        story = Story(run, *command.end(), done_before)
    times = begun(run)
    story.check(**{name: count for name, count in times.items() if count > 1 and name not in done_before})
    assert times[job] <= 2
    story.check_digits(tmp_path)
