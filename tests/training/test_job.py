import pytest

from raysk.recipe import Job
from raysk.training.job import run_job


def snapshot(run) -> dict[str, tuple[int, int]]:
    """Returns the inode and the modification time of every file of a run."""
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_job_writes_encoder_classifier_predictions_and_record(run, make_job, alone, diary):
    job, report = make_job(), diary()
    run_job(job, run, alone, report)
    stages = [("stage one", epoch) for epoch in range(3)] + [("stage two", epoch) for epoch in range(3)]
    assert report.calls == stages
    new = set(snapshot(run)) - {str(run.folder / name) for name in ("run.json", "manifest.parquet", "folds.parquet")}
    assert new == {
        str(path)
        for path in (
            run.encoder_file(job),
            run.features_file(job, "train-none-0"),
            run.features_file(job, "held_out-identity"),
            run.classifier_file(job),
            run.predictions_file(job.recipe.key, 0, "held_out"),
            run.record_file(job),
        )
    }
    record = run.record(job)
    assert (record.recipe, record.fold, record.part) == (job.recipe.key, job.fold, job.part)
    assert (record.workers, record.seconds > 0) == (1, True)
    for stage in (record.stage_one, record.stage_two):
        assert len(stage.losses) == 2
        assert stage.images > 0
    assert len(record.stage_one.health) == 2
    predictions = run.predictions(job.recipe.key, 0)
    assert record.score == run.goal.metric(predictions.mean(), run.manifest.labels[predictions.rows])


def test_a_finished_job_does_not_run_again(finished, frozen_job, alone, diary):
    before, report = snapshot(finished), diary()
    run_job(frozen_job, finished, alone, report)
    assert report.calls == []
    assert snapshot(finished) == before


def test_a_lost_record_does_not_repeat_the_training(run, make_job, alone, diary):
    job = make_job()
    run_job(job, run, alone, diary())
    record, before = run.record(job), snapshot(run)
    run.record_file(job).unlink()
    report = diary()
    run_job(job, run, alone, report)
    assert report.calls == []
    after = snapshot(run)
    for path in (run.encoder_file(job), run.classifier_file(job)):
        assert after[str(path)] == before[str(path)]
    again = run.record(job)
    assert (again.recipe, again.stage_one, again.stage_two) == (record.recipe, record.stage_one, record.stage_two)


@pytest.mark.parametrize("leave_after", [("stage one", 1), ("stage one", 2), ("stage two", 0), ("stage two", 1)])
def test_an_interrupted_job_resumes_and_predicts_the_same(leave_after, run, new_run, tmp_path, make_job, alone, diary):
    job = make_job({"model.backbone": "test_resnet"})
    run_job(job, run, alone, diary())
    other = new_run(tmp_path / "other")
    with pytest.raises(diary.Leave):
        run_job(job, other, alone, diary(leave_after=leave_after))
    assert not other.is_done(job)
    report = diary()
    run_job(job, other, alone, report)
    # Fitting a head on features starts again.
    assert report.calls[0] == (leave_after if leave_after[0] == "stage one" else ("stage two", 0))
    expected, actual = (source.predictions(job.recipe.key, 0).probabilities for source in (run, other))
    assert (actual == expected).all()


def test_each_fold_is_a_separate_job(finished, frozen_job, alone, diary):
    other, report = Job(frozen_job.recipe, fold=1), diary()
    run_job(other, finished, alone, report)
    assert ("stage one", 2) in report.calls
    assert (finished.predictions(frozen_job.recipe.key, 1).rows == finished.folds.held_out_rows(1)).all()


def test_a_job_sees_its_crop_in_training_and_in_its_predictions(run, make_job, alone, diary, monkeypatch):
    """The other recipe differs in its crop alone, and reads other pixels everywhere."""
    seen = []
    store = type(run).store
    monkeypatch.setattr(type(run), "store", lambda self, *shape: seen.append(shape) or store(self, *shape))
    job = make_job({"crop": {"region": "mask", "margin": 0.0}})
    run_job(job, run, alone, diary())
    assert seen and {crop.name for _, crop in seen} == {"mask + 0"}
    cropped, whole = run.images(job.recipe).pixels, store(run, job.recipe.image_size).pixels
    assert all((one != other).any() for one, other in zip(cropped, whole, strict=True))
    assert job.recipe.encoder_key != make_job().recipe.encoder_key
