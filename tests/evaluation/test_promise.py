"""Promised scores beside those on new images: the numbers of the metrics, and the correction where shares shift."""

import csv
import io

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from raysk.evaluation.promise import Evaluation, Promise, compare
from raysk.evaluation.promise_tables import as_csv, as_markdown, tables

NAMES = ("mel", "nv", "bcc")


TRAINED = (100, 600, 300)


def drawn(shares, num_rows=4000, seed=0):
    """Exact probabilities for the training shares, of classes with other shares; labels."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, size=num_rows, p=shares)
    points = random.normal(size=(num_rows, 3)) + 2 * np.eye(3)[labels]
    logits = 2 * points + np.log(np.array(TRAINED) / sum(TRAINED))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True), labels


def promise(**changes):
    scores = {"test_macro_f1": 0.7, "test_macro_f1_low": 0.6, "test_macro_f1_high": 0.8, "test_recall_mel": 0.9}
    shares = tuple(count / sum(TRAINED) for count in TRAINED)
    facts = {"name": "model", "class_names": NAMES, "metric": "macro_f1", "scores": scores}
    return Promise(**facts | {"class_counts": TRAINED, "assumed_shares": shares} | changes)


def line_of(evaluation, name):
    return next(line for line in (*evaluation.scores, *evaluation.classes) if line.name == name)


def test_scores_are_those_of_scikit_learn_beside_the_promised_ones():
    probabilities, labels = drawn([0.1, 0.6, 0.3])
    evaluation = compare(promise(), probabilities, labels, np.arange(4000) // 2, "clinic", [])
    predicted = probabilities.argmax(axis=1)
    macro, balanced, mel = (line_of(evaluation, name) for name in ("macro_f1", "balanced_accuracy", "mel"))
    assert macro.here.value == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert macro.here.low < macro.here.value < macro.here.high
    assert (macro.promised.value, macro.promised.low, macro.promised.high) == (0.7, 0.6, 0.8)
    assert balanced.here.value == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert balanced.promised.value is None
    assert mel.here.value == pytest.approx(recall_score(labels, predicted, average=None)[0])
    assert (mel.promised.value, mel.promised.low) == (0.9, None)
    assert mel.num_images == (labels == 0).sum()
    assert mel.share_in_training == pytest.approx(0.1)
    assert evaluation.num_groups == 2000


def test_without_a_shift_the_correction_changes_little_and_with_the_true_shares_nothing():
    probabilities, labels = drawn([0.1, 0.6, 0.3], 6000)
    evaluation = compare(promise(), probabilities, labels, np.arange(6000), "clinic", [])
    assert "do not say that the class shares differ" in evaluation.notes[0]
    line = line_of(evaluation, "accuracy")
    assert line.corrected == line.here
    assert line.best.value == pytest.approx(line.here.value, abs=0.01)


def test_with_a_shift_the_shares_are_found_and_the_correction_helps():
    probabilities, labels = drawn([0.6, 0.2, 0.2])
    evaluation = compare(promise(), probabilities, labels, np.arange(4000), "clinic", [])
    assert "say that the class shares differ from those of training" in evaluation.notes[0]
    accuracy = line_of(evaluation, "accuracy")
    assert accuracy.here.value + 0.02 < accuracy.corrected.value <= accuracy.best.value + 0.005
    for line in evaluation.classes:
        assert line.share_estimated == pytest.approx(line.share_here, abs=0.03)


def test_a_classifier_that_assumes_equal_shares_on_purpose_keeps_them_without_a_shift():
    """As after training on balanced batches: recall of rare classes is what it was made for."""
    probabilities, labels = drawn([0.1, 0.6, 0.3])
    weighted = probabilities / np.array(TRAINED)
    balanced = weighted / weighted.sum(axis=1, keepdims=True)
    evaluation = compare(promise(assumed_shares=(1 / 3,) * 3), balanced, labels, np.arange(4000), "clinic", [])
    for line in evaluation.classes:
        assert line.share_estimated == pytest.approx(line.share_here, abs=0.03)
    line = line_of(evaluation, "balanced_accuracy")
    assert line.corrected == line.here


def test_predictions_that_say_nothing_correct_nothing():
    """Whatever the shares, expectation-maximisation gives an arbitrary answer here."""
    random = np.random.default_rng(0)
    flat = np.array(TRAINED) / sum(TRAINED) + random.normal(size=(60, 3)) * 1e-4
    evaluation = compare(promise(), flat, random.integers(3, size=60), np.arange(60), "clinic", [])
    assert "nothing is corrected" in evaluation.notes[0]
    assert all(line.corrected == line.here for line in evaluation.scores)


def test_a_missing_class_has_no_recall_and_is_said():
    probabilities, labels = drawn([0.0, 0.6, 0.4], 200)
    evaluation = compare(promise(), probabilities, labels, np.arange(200), "clinic", ["First."])
    assert line_of(evaluation, "mel").here.value is None
    assert line_of(evaluation, "mel").num_images == 0
    assert evaluation.notes[0] == "First."
    assert any("No image shows mel." in note for note in evaluation.notes)


def test_one_class_alone_has_no_auc_but_can_be_evaluated():
    probabilities, _ = drawn([1.0, 0.0, 0.0], 30)
    evaluation = compare(promise(), probabilities, np.zeros(30, int), np.arange(30), "clinic", [])
    assert line_of(evaluation, "macro_auc").here.value is None
    assert as_markdown(evaluation)


def test_the_files_hold_the_same_numbers(tmp_path):
    probabilities, labels = drawn([0.3, 0.4, 0.3], 300)
    evaluation = compare(promise(name="a|b"), probabilities, labels, np.arange(300), "clinic", [])
    evaluation.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == evaluation
    rows = {(row["score"], row["of"]): row for row in csv.DictReader(io.StringIO(as_csv(evaluation)))}
    line = line_of(evaluation, "macro_f1")
    assert float(rows["macro_f1", "here"]["value"]) == line.here.value
    assert float(rows["macro_f1", "corrected"]["high"]) == line.corrected.high
    assert float(rows["share_mel", "estimated"]["value"]) == line_of(evaluation, "mel").share_estimated
    assert rows["balanced_accuracy", "promised"]["value"] == ""
    page = as_markdown(evaluation)
    for _, headings, lines in tables(evaluation):
        assert "| " + " | ".join(headings) + " |" in page
        assert all("| " + " | ".join(cells) + " |" in page for cells in lines)
    assert f"{line.here.value:.3f} [{line.here.low:.3f}, {line.here.high:.3f}]" in page
