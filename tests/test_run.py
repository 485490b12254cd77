from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysk.artifacts import read_json, write_json
from raysk.data.crop import Crop
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import make_manifest
from raysk.data.store.building import build_store
from raysk.errors import ArtifactError, ConfigError
from raysk.evaluation.predictions import Predictions
from raysk.recipe import Job, Recipe
from raysk.records import JobRecord
from raysk.run import Run
from raysk.run_facts import data_digest
from tests.run_facts import run_facts


@pytest.fixture
def job(small_recipe) -> Job:
    return Job(Recipe.from_plain(small_recipe()), fold=1)


def test_a_created_run_can_be_opened(run, manifest, folds, cache):
    again = Run.open(run.folder)
    assert again == run
    assert again.cache == cache
    assert again.manifest.digest == manifest.digest
    assert again.manifest.paths == manifest.paths
    assert again.folds.digest == folds.digest
    assert again.facts == run_facts(manifest, folds, cache)


def test_a_folder_with_a_study_is_not_created_again(run, manifest, folds, cache):
    before = (run.folder / "run.json").read_bytes()
    with pytest.raises(ArtifactError, match=r"^--run must be a new folder, but .* has a study: add --resume") as caught:
        Run.create(run.folder, manifest, folds, run_facts(manifest, folds, cache, space="another"))
    assert "\n" not in str(caught.value)
    assert (run.folder / "run.json").read_bytes() == before


def test_a_folder_whose_creation_stopped_halfway_can_be_created_again(tmp_path, manifest, folds, cache):
    """run.json is written last."""
    manifest.write(tmp_path / "run" / "manifest.parquet")
    assert Run.create(tmp_path / "run", manifest, folds, run_facts(manifest, folds, cache)).folds.digest == folds.digest


def test_a_folder_without_a_study_is_not_opened(tmp_path):
    with pytest.raises(ArtifactError, match=r"run\.json must exist, but does not") as caught:
        Run.open(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def resumable(tmp_path, manifest, folds, cache) -> Run:
    facts = run_facts(manifest, folds, cache, space="supcon", overrides=("stage_one.epochs=3",))
    return Run.create(tmp_path / "begun", manifest, folds, facts)


def test_the_same_study_can_be_resumed_on_another_machine(resumable):
    here = replace(resumable.facts, cache="/other", data={"path": "/other"}, images={"32": "key"}, command="again")
    Run.open(resumable.folder).check_same(here)
    moved = Run.open(resumable.folder).moved(here)
    assert moved == Run.open(resumable.folder)
    assert moved.cache == Path("/other")
    assert moved.facts == replace(here, command=""), "the first command is kept"


@pytest.mark.parametrize(
    ("name", "value"),
    [("manifest", "another"), ("space", "control"), ("overrides", ("stage_one.epochs=4",)), ("recipe", "abc"),
     ("content_of_the_space", "other"), ("initial_weights", "file"), ("pixels", "p"), ("folds", "f")],
)  # fmt: skip
def test_another_study_cannot_be_resumed(name, value, resumable):
    noun = name.replace("_", " ")
    with pytest.raises(ArtifactError, match=f"^--resume must find the {noun} that ") as caught:
        resumable.check_same(replace(resumable.facts, **{name: value}))
    assert (value if isinstance(value, str) else ", ".join(value)) in str(caught.value)
    assert "choose another --run" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_driver_at_a_time_uses_a_folder(run):
    busy = f"no other raysk uses, but one uses {run.folder}: wait"
    with Run.reserved(run.folder), pytest.raises(ArtifactError, match=busy):
        Run.reserved(run.folder).__enter__()
    with Run.reserved(run.folder):
        pass


def test_folds_of_another_manifest_are_refused(run, manifest):
    images = manifest.table.column("image").to_pylist()
    names = [manifest.class_names[label] for label in manifest.labels]
    make_folds(make_manifest(images, names, root=manifest.root), FoldSettings(k=2, test_share=0.1)).write(
        run.folder / "folds.parquet"
    )
    with pytest.raises(ArtifactError, match=r"^folds must be of manifest"):
        _ = run.folds


def test_each_job_has_files_of_its_own(run, job, small_recipe):
    other = Job(Recipe.from_plain(small_recipe({"stage_two.epochs": 3})), fold=1)
    other_fold = Job(job.recipe, fold=0)
    assert run.encoder_file(job) == run.encoder_file(other)
    for first, second in ((job, other), (job, other_fold)):
        assert run.classifier_file(first) != run.classifier_file(second)
        assert run.record_file(first) != run.record_file(second)
    assert run.encoder_file(job) != run.encoder_file(other_fold)
    assert run.record_file(job) != run.record_file(job.for_test())
    assert run.classifier_file(job) == run.classifier_file(job.for_test())
    files = {run.predictions_file(job.recipe.key, fold, part) for fold in (0, 1) for part in ("held_out", "test")}
    assert len(files) == 4


def test_recipes_are_kept(run, job):
    run.keep_recipe(job.recipe)
    assert run.recipe(job.recipe.key) == job.recipe
    with pytest.raises(ArtifactError, match="must exist"):
        run.recipe("unknown")


def test_a_job_is_done_when_its_record_exists(run, job):
    assert not run.is_done(job)
    with pytest.raises(ArtifactError, match="must exist"):
        run.record(job)
    run.record_file(job).parent.mkdir()
    record = JobRecord(
        recipe=job.recipe.key, fold=job.fold, part=job.part, seconds=1, workers=1, threads=1, metric="macro_f1"
    )
    record.write(run.record_file(job))
    assert run.is_done(job)
    assert not run.is_done(job.for_test())
    assert run.record(job) == record


def test_predictions_are_read_by_recipe_fold_and_part(run, job):
    rows = run.folds.test_rows
    probabilities = np.full((1, len(rows), 7), 1 / 7, np.float32)
    Predictions.of_fold(
        run.manifest,
        run.folds,
        fold=1,
        part="test",
        recipe_key=job.recipe.key,
        views=("identity",),
        probabilities=probabilities,
        class_names=run.class_names,
    ).write(run.predictions_file(job.recipe.key, 1, "test"))
    assert np.array_equal(run.predictions(job.recipe.key, 1, "test").rows, rows)
    with pytest.raises(ArtifactError, match="must hold predictions"):
        run.predictions(job.recipe.key, 1)


def test_images_are_decoded_at_any_size_and_named_with_the_rows(run, manifest):
    store, smaller = run.store(32), run.store(16)
    assert store.pixels.shape == (len(manifest), 32, 32, 3)
    assert smaller.pixels.shape == (len(manifest), 16, 16, 3)
    digests = {
        data_digest(manifest, {"32": store}, {}),
        data_digest(manifest, {"16": smaller}, {}),
        data_digest(manifest.without([int(np.argmax(np.bincount(manifest.labels)))]), {"32": store}, {}),
    }
    assert len(digests) == 3
    assert data_digest(manifest, {"32": run.store(32)}, {}) in digests


def test_every_crop_is_named_with_the_rows_and_a_further_size_is_not(run, manifest):
    plain, cropped, wider = (
        run.store(16, crop) for crop in (Crop(), Crop(region="mask"), Crop(region="mask", margin=0.5))
    )
    alone = data_digest(manifest, {"16": plain}, {})
    assert data_digest(manifest, {"16": plain, "32": run.store(32)}, {}) == alone
    both = data_digest(manifest, {"16": plain, "16, mask + 0.1": cropped}, {})
    # A changed mask gives the crop other pixels, as another margin does here.
    changed = data_digest(manifest, {"16": plain, "16, mask + 0.1": wider}, {})
    assert len({alone, both, changed}) == 3


def test_a_study_without_a_test_part_is_refused(tmp_path, manifest, cache):
    folds = make_folds(manifest, FoldSettings(k=2, test_share=0))
    with pytest.raises(ConfigError, match="must have a locked test part"):
        Run.create(tmp_path / "run", manifest, folds, run_facts(manifest, folds, cache))


def test_images_are_found_by_the_key_that_the_run_keeps(tmp_path, manifest, folds, cache):
    store, _ = build_store(manifest, 16, cache, shared=str(tmp_path / "shared"))
    facts = run_facts(
        manifest, folds, cache, stores=str(tmp_path / "shared"), images={str(store.pixels.shape[1]): store.key}
    )
    Run.create(tmp_path / "run", manifest, folds, facts)
    elsewhere = Run(tmp_path / "run", tmp_path / "another machine", str(tmp_path / "shared"))
    assert Run.open(tmp_path / "run").stores == str(tmp_path / "shared")
    copy = elsewhere.store(16)
    assert copy.folder.parent == tmp_path / "another machine"
    assert copy.digest == store.digest
    assert elsewhere.store(8).pixels.shape == (len(manifest), 8, 8, 3), "a size that nobody has decoded yet"


def test_rows_without_their_unreadable_images_keep_their_pixels(tmp_path):
    """The store has all files; a run on the readable rows must not decode them again."""
    for number in range(8):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"")
    everything = make_manifest([f"{number}.png" for number in range(8)], ["a", "b"] * 4, root=tmp_path)
    store, bad = build_store(everything, 8, tmp_path / "cache", on_error="skip")
    manifest = everything.without([image.row for image in bad])
    folds = make_folds(manifest, FoldSettings(k=2, test_share=0.2))
    facts = run_facts(manifest, folds, tmp_path / "cache", images={str(store.pixels.shape[1]): store.key})
    run = Run.create(tmp_path / "run", manifest, folds, facts)
    assert run.store(8).folder == store.folder
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(("facts", "version"), [({}, "0.1.0"), ({"schema": 99, "version": "9.1.0"}, "9.1.0")])
def test_a_run_of_another_schema_is_refused_with_the_version_that_reads_it(run, facts, version):
    written = read_json(run.folder / "run.json")
    write_json(run.folder / "run.json", {k: v for k, v in written.items() if k not in ("schema", "version")} | facts)
    with pytest.raises(ArtifactError, match=rf"pip install raysk=={version}\)$"):
        Run.open(run.folder)


def test_a_run_whose_predictions_name_no_images_is_refused(run):
    facts = read_json(run.folder / "run.json")
    write_json(run.folder / "run.json", facts | {"schema": "3.1", "version": "0.2.0"})
    with pytest.raises(ArtifactError, match=r"with schema 3\.1: read it with that version") as caught:
        Run.open(run.folder)
    assert "\n" not in str(caught.value)


def test_a_run_json_that_is_a_list_is_refused(run):
    write_json(run.folder / "run.json", [1, 2])
    with pytest.raises(ArtifactError, match=r"run\.json must hold named facts, but got \[1, 2\]: restore it"):
        Run.open(run.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("pixels"), "pixels: field required"),
        (lambda facts: facts.update(pixel="x"), "pixel: unexpected keyword argument"),
        (lambda facts: facts.update(cache=3), "cache: input should be a valid string"),
        (lambda facts: facts.update(overrides="seed=1"), "overrides: input should be a valid tuple"),
        (lambda facts: facts.update(images=None), "images: input should be a valid dictionary"),
    ],
)
def test_a_run_json_with_a_missing_unknown_or_wrong_fact_is_refused_in_one_line(change, message, run):
    facts = read_json(run.folder / "run.json")
    change(facts)
    write_json(run.folder / "run.json", facts)
    with pytest.raises(ArtifactError, match=r"run\.json must be a RunFacts of this raysk, but ") as caught:
        Run.open(run.folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_training_records_are_those_of_the_finished_folds(run, job):
    assert run.training_records(job.recipe.key) == []
    record = JobRecord(
        recipe=job.recipe.key, fold=1, part="held_out", seconds=1.0, workers=1, threads=1, metric="macro_f1", score=0.5
    )
    record.write(run.record_file(job))
    replace(record, part="test").write(run.record_file(job.for_test()))
    assert run.training_records(job.recipe.key) == [record]
