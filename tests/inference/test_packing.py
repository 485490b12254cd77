"""What a bundle predicts is what the run has predicted."""

import numpy as np
import pytest

import raysk
from raysk.errors import ArtifactError
from raysk.evaluation.ensemble import AVERAGE, GREEDY
from raysk.inference.bundle import Bundle
from raysk.inference.packing import pack_row
from raysk.inference.predictor import Predictor


@pytest.mark.parametrize("row", ["linear", "cosine, shifted", "end to end", GREEDY, AVERAGE])
def test_a_bundle_predicts_the_test_part_as_the_board_does(finished_run, tmp_path, row):
    pack_row(finished_run, row).write(tmp_path / "row.raysk")
    expected = raysk.open_run(finished_run.folder).test_part(row)
    files = [str(finished_run.manifest.paths[place]) for place in expected.index]
    predictor = Predictor(Bundle.read(tmp_path / "row.raysk"), "cpu")
    probabilities = predictor.predict_proba(files)
    np.testing.assert_allclose(probabilities, expected[list(finished_run.manifest.class_names)], atol=1e-6, rtol=0)
    assert list(predictor.classes_) == list(finished_run.manifest.class_names)
    assert (predictor.predict(files) == predictor.classes_[probabilities.argmax(axis=1)]).all()


def test_encoders_that_members_share_are_stored_once(finished_run):
    facts = pack_row(finished_run, AVERAGE).facts
    folds = len(finished_run.folds)
    assert len(facts.heads) == 3 * folds
    assert len(facts.encoders) == 2 * folds
    assert facts.image_sizes == (24, 32)


def test_a_run_without_a_board_and_an_unknown_row_are_refused(run, finished_run):
    with pytest.raises(ArtifactError, match="the study has not ended"):
        pack_row(run)
    with pytest.raises(ArtifactError, match="ROW must be a place, a name or a key"):
        pack_row(finished_run, "linaer")
