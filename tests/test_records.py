import json

import pytest

from raysk.errors import ArtifactError
from raysk.records import Health, JobRecord, ReferenceRecord, SearchRecord, StageRecord, TriedSetting
from raysk.search.jobs import JobEnd, JobProgress, JobRequest, LaneStatus, Outcome, QueueStatus
from raysk.search.trial_records import Step, TrialOrder, TrialRecord, TrialReport

HEALTH = Health(
    probe=0.5,
    linear_probe=0.6,
    neighbour_probe=0.4,
    alignment=0.2,
    uniformity=-1.5,
    effective_rank=3.0,
    collapsed=("mel",),
    alarm="collapsed: mel",
)
STAGE = StageRecord(seconds=1.5, images=64, losses=(0.1 + 0.2, 1 / 3), health=(HEALTH,))
REQUEST = JobRequest(id="a", work={"kind": "job", "fold": 0}, priority=(0, 1.5), encoder="e", title="A", needs=("b",))
LANE = LaneStatus(lane=0, incarnation=1, is_lost=False, job=None, busy_seconds=2.0, progress=JobProgress(epoch=3))
RECORDS = [
    HEALTH,
    STAGE,
    JobRecord(
        recipe="k",
        fold=1,
        part="test",
        seconds=2.0,
        workers=1,
        threads=2,
        metric="macro_f1",
        score=None,
        stage_one=STAGE,
        stage_two=None,
    ),
    SearchRecord(
        recipe="k",
        kept=("k",),
        score=0.5,
        crossfit_scores=(0.4, 0.5),
        crossfit_merits=(0.4, -0.1),
        seconds=9.0,
        tried=(
            TriedSetting(
                recipe="k",
                scores=(0.5, 0.5),
                stage_two={"loss": {"g": 1}},
            ),
        ),
    ),
    ReferenceRecord(
        recipe="k", fold=1, seconds=0.5, heads=("a", "b"), scores=((0.5, 0.9), (0.4, 0.8)), merits=(0.5, 0.4)
    ),
    REQUEST,
    JobEnd(outcome=Outcome.BROKEN, reason="no space"),
    LANE,
    QueueStatus(lanes=(LANE,), waiting=3, ended=dict.fromkeys(Outcome, 1)),
    TrialOrder(
        broker="b",
        number=4,
        num_folds=6,
        folds_of_division=3,
        num_lanes=2,
        is_raced=True,
        has_references=True,
        larger_is_better=True,
        steps=(Step(request=REQUEST, record="/x.json"),),
    ),
    TrialReport(outcome=Outcome.DONE, folds=2, score=0.25),
    TrialRecord(point="paper", family="supcon", kind="start", recipe="k", overrides=("a=1",), search="s", origin=3),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_json(record, tmp_path):
    record.write(tmp_path / "record.json")
    assert type(record).read(tmp_path / "record.json") == record
    assert type(record).from_plain(json.loads(json.dumps(record.to_plain())), "here") == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_an_unknown_key_is_refused(record):
    with pytest.raises(ArtifactError, match=r"here must be a .* of this raysk, but later: unexpected"):
        type(record).from_plain({**record.to_plain(), "later": 1}, "here")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fold": None}, "fold: input should be a valid integer"),
        ({"part": "validation"}, "part: input should be 'held_out' or 'test'"),
        ({"stage_one": {"seconds": 1}}, "stage_one.images: field required"),
        ({"seconds": "long"}, "seconds: input should be a valid number"),
    ],
)
def test_a_record_of_another_version_or_an_edited_one_is_refused_in_one_line(change, why, tmp_path):
    path = tmp_path / "jobs" / "a.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**RECORDS[2].to_plain(), **change}))
    with pytest.raises(ArtifactError, match="remove it, or read it with the version that wrote it") as caught:
        JobRecord.read(path)
    assert f"{path} must be a JobRecord of this raysk, but {why}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "null", "{"])
def test_a_file_that_is_not_a_record_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ArtifactError):
        JobRecord.read(tmp_path / "a.json")


def test_a_trial_keeps_only_what_it_says():
    assert TrialRecord().attributes == {}
    assert TrialRecord(point="paper", overrides=("a=1",)).attributes == {"point": "paper", "overrides": ["a=1"]}


def test_a_report_carries_what_tune_wants():
    done = TrialReport(outcome=Outcome.DONE, folds=3, score=0.5, is_complete=True).to_result()
    failed = TrialReport(outcome=Outcome.FAILED, folds=1, reason="nan").to_result()
    assert (done["score"], done["done"], failed["done"], "score" in failed) == (0.5, True, True, False)
    assert TrialReport.of_result(done | {"trial_id": "x", "training_iteration": 3}).is_complete
