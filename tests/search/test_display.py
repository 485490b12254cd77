import io
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from raysk.loading import progress_bar
from raysk.search.display import StudyDisplay, Terminal, chatter_to
from raysk.search.jobs import JobProgress, LaneStatus, Outcome, QueueStatus
from raysk.search.lanes import Lane, Phase
from raysk.search.panel import Awaited, Pace, Panel
from raysk.search.resources import plan_lanes
from raysk.search.searcher import SearchProgress


class Pool:
    """A pool with a working lane, an idle one, a starting one, a waiting one, and one that was given up."""

    plan = plan_lanes(4, 0, 1, 0)

    def __init__(self):
        self.lanes = [Lane(0, 1), Lane(1, 2), Lane(2, 3), Lane(3, 1, Phase.WAITING), Lane(4, failure="OSError: no")]
        self.lanes[3].since -= 83


WORKING = JobProgress(
    stage="stage one",
    epoch=3,
    epochs=9,
    images=300,
    seconds=2.0,
    probe=0.4567,
    linear_probe=0.5123,
    neighbour_probe=0.4,
    effective_rank=17.34,
)
COLLAPSED = replace(WORKING, probe=0.2, effective_rank=1.3, alarm="the embedding has collapsed")


def the_status(progress):
    """Returns lanes with a job, without a job, and with a lost worker group."""
    busy = LaneStatus(
        lane=0, incarnation=1, is_lost=False, job="abc-fold1-held_out", busy_seconds=2.0, progress=progress
    )
    idle = LaneStatus(lane=1, incarnation=2, is_lost=False, job=None, busy_seconds=0.0)
    lost = LaneStatus(lane=2, incarnation=2, is_lost=True, job=None, busy_seconds=0.0)
    ended = dict.fromkeys(Outcome, 0) | {Outcome.DONE: 5}
    return QueueStatus(lanes=(busy, idle, lost), waiting=4, ended=ended)


def displayed(is_terminal, best=("paper", 0.5), working=WORKING, then=None):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=160, height=40, legacy_windows=False)
    progress = SearchProgress(say=print, begun=4, complete=2, stopped=1, failed=1, best=best)
    with StudyDisplay(console) as display:
        display.follow(progress, 8)
        display.update(the_status(working), Pool(), left=7)
        display.say("paper: fold 1 of 3, macro-F1 0.500 [draft]")
        if then:
            then(display)
        if is_terminal:
            display._live.draw()
    return stream.getvalue()


def test_a_file_gets_plain_lines_only():
    assert displayed(False) == "  0:00  paper: fold 1 of 3, macro-F1 0.500 [draft]\n"


@pytest.mark.parametrize(
    "part",
    [
        "2 complete, 1 stopped, 1 failed of 8", "jobs done 5", "(paper)", "lanes busy 1 of 5", "150 images/s",
        "abc-fold1-held_out  0:00", "stage one", "epoch 3 of 9", "━━━━━", "idle", "about 0 s left",
        "probe 0.457, rank 17.3, linear 0.512, k-NN 0.400", "starting, 0:00", "waits for a node with 1 CPU, 1:23",
        "OSError: no",
    ],
)  # fmt: skip
def test_a_terminal_shows_the_study(part):
    assert part in displayed(True)


def test_a_study_without_a_score_yet_says_so():
    assert "no score yet" in displayed(True, best=None)


def test_an_alarm_in_red_replaces_the_probe():
    shown = displayed(True, working=COLLAPSED)
    assert "\x1b[1;31mthe embedding has collapsed" in shown
    assert "probe" not in shown


def test_an_idle_lane_shows_no_probe():
    assert rendered(panel_of(WORKING)).count("probe") == 1


def test_a_phase_is_a_line_in_a_file_and_a_clock_in_a_terminal():
    stream = io.StringIO()
    with StudyDisplay(Console(file=stream, width=80)) as display:
        display.wait("starting Ray")
        display.wait("ending the lanes", is_told=False)
        display.wait("")
    assert stream.getvalue() == "  0:00  starting Ray\n"
    panel = Panel(Awaited("starting Ray"))
    panel.awaited.since -= 83
    assert rendered(panel).strip() == "starting Ray  1:23"


def test_a_phase_with_a_known_end_has_a_bar_and_no_time_left():
    def score(display):
        display.wait("scoring 8 fold models on the locked test part", 8)
        display.advance(6)

    shown = displayed(True, then=score)
    assert "scoring 8 fold models on the locked test part  0:00" in shown
    assert "6 of 8" in shown
    assert displayed(False, then=score).endswith("  0:00  scoring 8 fold models on the locked test part\n")


def test_a_search_of_stage_two_counts_settings_and_says_since_when():
    search = JobProgress(stage="stage-two search", epoch=50, epochs=200)
    assert "setting 50 of 200" in displayed(True, working=search)
    assert "fold 12 of 30" in displayed(True, working=JobProgress(stage="best settings", epoch=12, epochs=30))
    assert "preparing" in displayed(True, working=JobProgress())
    panel = panel_of(search)
    panel._seen[0] = (panel._seen[0][0], time.monotonic() - 83)
    panel.update(the_status(search), Pool(), 7)
    assert "abc-fold1-held_out  1:23" in rendered(panel), "the same job goes on"


def test_the_time_left_counts_what_is_left_at_the_pace_of_this_session():
    panel = panel_of(WORKING)
    panel.pace.began = time.monotonic() - 50
    assert "about 70 s left" in rendered(panel), "five jobs took 50 s, and seven are left"
    panel.awaited = Awaited("scoring")
    assert "left" not in rendered(panel), "the search is over"


def test_the_time_left_is_unknown_before_a_job_is_done():
    assert Pace(left=3).time_left(0) == "time left: unknown until the first fold is done"
    assert Pace(time.monotonic() - 600, left=9).time_left(3) == "about 30 min left"


def panel_of(working):
    panel = Panel(progress=SearchProgress(say=print), num_trials=8)
    panel.update(the_status(working), Pool(), 7)
    return panel


def test_a_study_that_only_the_time_ends_shows_neither_a_total_nor_a_time_left():
    panel = panel_of(WORKING)
    assert " of 8" in rendered(panel)
    assert "left" in rendered(panel)
    panel.num_trials = None
    assert " of 8" not in rendered(panel)
    assert "left" not in rendered(panel)


def rendered(panel, width=200, height=40):
    stream = io.StringIO()
    Console(file=stream, width=width, height=height).print(panel)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (90, "lane 0  paper, fold 2  0:00  stage one  ━━╸       epoch 3 of 9  classes have collapsed on…"),
        (80, "lane 0  paper, fold 2  0:00  stage one  ━━╸       epoch 3 of 9  classes have co…"),
        (65, "lane 0  paper, fold 2  0:00  stage one  ━━╸       epoch 3 of 9"),
        (41, "lane 0  paper, fold 2  0:00  epoch 3 of 9"),
        (40, "lane 0  paper, fold…  0:00  epoch 3 of 9"),
        (39, "lane 0  paper, fold 2  0:00  ━━╸"),
        (30, "lane 0  paper, fold 2  0:00"),
        (20, "lane 0  paper, fold…"),
    ],
)
def test_a_lane_at_work_has_one_line_with_what_fits(width, line):
    status = the_status(
        replace(WORKING, alarm="classes have collapsed onto others with at least as many rows: akiec, bkl, vasc")
    )
    panel = panel_of(WORKING)
    panel.update(replace(status, lanes=(replace(status.lanes[0], job="paper, fold 2"), *status.lanes[1:])), Pool(), 7)
    lines = rendered(panel, width).splitlines()
    assert max(map(len, lines)) <= width
    first = next(number for number, line in enumerate(lines) if line.startswith("lane 0"))
    assert lines[first].rstrip() == line
    assert lines[first + 1].startswith("lane 1"), lines


def test_facts_are_not_broken_in_the_middle():
    panel = panel_of(WORKING)
    panel.progress = SearchProgress(say=print, complete=2, stopped=1, metric="macro-F1", best=("cross_entropy", 0.368))
    assert [line.rstrip() for line in rendered(panel, 80).splitlines()[:2]] == [
        "recipes 2 complete, 1 stopped, 0 failed of 8 · jobs done 5",
        "best macro-F1 0.368 (cross_entropy)",
    ]


def test_in_a_narrow_window_what_is_awaited_keeps_its_clock_and_its_count():
    (line,) = rendered(Panel(Awaited("scoring 33 fold models on the locked test part", 33, 14)), 60).splitlines()
    assert line.startswith("scoring 33 fold m")
    assert line.split("…")[1].split() == ["0:00", "━━━━━━╸", "14", "of", "33"]


def test_in_a_low_window_lanes_make_room_for_the_other_lines():
    panel = panel_of(WORKING)
    panel.awaited = Awaited("ending the lanes")
    lines = [line.rstrip() for line in rendered(panel, height=6).splitlines()]
    assert len(lines) == 6
    assert lines[2:] == [
        "lane 1  idle",
        "and 3 more lanes",
        "lanes busy 1 of 5 · 150 images/s",
        "ending the lanes  0:00",
    ]
    assert "more lanes" not in rendered(panel, height=8)


def test_a_study_goes_on_when_the_reader_of_its_output_has_gone():
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", buffering=1)
    with StudyDisplay(Terminal(file=stream)) as display:
        display.say("nobody reads this")
        display.say("or this")
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_chatter_of_this_process_and_its_children_goes_to_the_file(tmp_path):
    script = tmp_path / "chatty.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from raysk.search.display import chatter_to\n"
        "print('before')\n"
        f"with chatter_to(Path({str(tmp_path)!r}) / 'logs' / 'ray.log') as terminal:\n"
        "    print('python'); print('error', file=sys.stderr)\n"
        "    os.write(1, b'descriptor\\n'); subprocess.run(['echo', 'child'])\n"
        "    print('for the user', file=terminal)\n"
        "print('after'); print('warned', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "before\nfor the user\nafter\n"
    assert done.stderr == "warned\n"
    assert sorted((tmp_path / "logs" / "ray.log").read_text().split()) == ["child", "descriptor", "error", "python"]


def test_the_terminal_is_restored_after_an_error(tmp_path, capfd):
    with pytest.raises(ValueError, match="inside"), chatter_to(tmp_path / "log"):
        raise ValueError("inside")
    os.write(1, b"here again\n")
    assert capfd.readouterr().out == "here again\n"


def test_a_bar_is_drawn_in_a_terminal_only():
    for is_terminal in (False, True):
        stream = io.StringIO()
        with progress_bar(Console(file=stream, force_terminal=is_terminal, width=80), "decoding") as bar:
            bar(3, 4)
        assert ("3/4" in stream.getvalue()) is is_terminal
