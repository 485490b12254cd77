"""A classifier is opened from a file or from a run; both predict the same."""

import pytest
import torch

from raysk.errors import ArtifactError
from raysk.evaluation.ensemble import GREEDY
from raysk.inference.opening import open_bundle


def test_a_run_and_its_file_hold_the_same_classifier(finished_run, bundle_file):
    of_run, of_file = open_bundle(finished_run.folder), open_bundle(str(bundle_file))
    assert of_run.facts == of_file.facts
    assert of_run.facts.provenance.name == GREEDY
    for name, tensor in of_run.tensors.items():
        assert torch.equal(tensor, of_file.tensors[name])
    assert open_bundle(finished_run.folder, "linear").facts.provenance.name == "linear"


@pytest.mark.parametrize(("row", "refitted", "name"), [("linear", False, "--row linear"), (None, True, "--refitted")])
def test_a_row_of_a_file_is_refused(bundle_file, row, refitted, name):
    with pytest.raises(ArtifactError, match=f"a row must be chosen when the bundle is made, but got {name}"):
        open_bundle(bundle_file, row, refitted=refitted)


def test_a_path_to_nothing_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="MODEL must be a bundle"):
        open_bundle(tmp_path / "none.raysk")
