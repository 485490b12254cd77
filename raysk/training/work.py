"""The work of a lane: a job, or a search of stage two on the encoders of finished jobs."""

from typing import Any

from raysk.recipe import Job
from raysk.run import Run
from raysk.spaces.stage_two_search import StageTwoSearch
from raysk.training.job import run_job
from raysk.training.loop import Report
from raysk.training.stage_two_search.search import search_stage_two
from raysk.training.world import World

Work = Job | StageTwoSearch


def work_from_plain(plain: dict[str, Any]) -> Work:
    """Reads a job or a search from its JSON form, which names the kind."""
    kinds: dict[str, type[Work]] = {"job": Job, "stage-two search": StageTwoSearch}
    return kinds[plain["kind"]].from_plain(plain)


def do_work(work: Work, run: Run, world: World, report: Report) -> None:
    """Does the work, or the rest of it; arguments and errors as for `run_job`."""
    if isinstance(work, StageTwoSearch):
        search_stage_two(work, run, world, report)
    else:
        run_job(work, run, world, report)
