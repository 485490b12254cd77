"""The model card of a bundle, in Markdown (Mitchell et al. 2019, "Model Cards for Model Reporting")."""

from pathlib import PurePath

from raysk.inference.bundle import BundleFacts, Provenance

_USE = """\
    raysk predict FILE.raysk PHOTOGRAPHS/ --output predictions.csv

or in Python:

    import raysk
    model = raysk.load("FILE.raysk")
    model.predict_proba(["photograph.jpg"])  # one column per class of model.classes_

An image may have any size: it is scaled so that its shorter side has {sizes} pixels, and cropped to its centre, so the
finding should be in the middle. The answer is a probability for each class; they sum to 1. `disagreement` is the share
of the {members} that would choose another class: look at an image with a high one yourself."""

_LIMITS = """\
- The scores hold for images like those of its study. Another camera, clinic or population may give others: run
  `raysk evaluate FILE.raysk data=...` on labelled images of your own before you rely on it.
- It knows no class but those above, and gives every image one of them, even an image that shows none.
- The probabilities fit classes that are as frequent as in the table above. Where they are not, `raysk evaluate`
  estimates their shares and corrects the probabilities.
- A score of a class with few test images says little: read its interval.
- It is no medical device. It must not decide on a diagnosis or a treatment; a physician does."""


def card_of(facts: BundleFacts) -> str:
    """Returns the model card."""
    provenance = facts.provenance
    return "\n\n".join(
        [
            f"# {provenance.name}",
            _summary(facts),
            "## Use\n\n" + _use(facts),
            *_decisions(facts),
            "## How well it does\n\n" + _scores(provenance),
            "## Each class\n\n" + _classes(facts),
            "## Limits\n\n" + _LIMITS,
            "## Training\n\n" + _training(facts),
            "## Licences\n\n"
            + f"- Weights: {provenance.weights_licence}.\n- Images: {provenance.data_licence}.",
            "## Repeat\n\n    " + provenance.command + "\n\n" + _versions(provenance),
        ]
    ) + "\n"  # fmt: skip


def _decisions(facts: BundleFacts) -> list[str]:
    """Returns the section on the operating points, if there are any."""
    points = [point for point in facts.operating_points if point.threshold is not None]
    if not points:
        return []
    lines = []
    for point in points:
        rates = (point.sensitivity, point.specificity, point.test_sensitivity, point.test_specificity)
        cells = (point.class_name, _rate(point.threshold), ", ".join(point.requirements), *map(_rate, rates))
        lines.append(f"| {' | '.join(cells)} |")
    return [
        "## Decisions\n\nThe study had requirements. `decision` is the class whose probability reaches its threshold, "
        "else the most probable other class. The threshold was chosen out of fold; the first two rates are "
        "cross-fitted, the last two those of the test part.\n\n"
        "| class | threshold | required | sensitivity | specificity | in the test part | in the test part |\n"
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |\n" + "\n".join(lines)
    ]


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.3f}"


def _summary(facts: BundleFacts) -> str:
    names = ", ".join(facts.class_names)
    return (
        f"Says which of {len(facts.class_names)} classes an image shows: {names}. Made by raysk on "
        f"{facts.provenance.created}, for research on images like those of its study; see Limits."
    )


def _use(facts: BundleFacts) -> str:
    sizes = " and ".join(map(str, facts.image_sizes))
    views = len({view for head in facts.heads for view in head.weights})
    members = _number(len(facts.heads), "model") + (f" in {views} views" if views > 1 else "")
    return _USE.format(sizes=sizes, members=members)


def _scores(provenance: Provenance) -> str:
    scores = provenance.scores
    lines = [f"| {name.replace('_', ' ')} | {_with_interval(scores, name)} |" for name in _headline(provenance)]
    note = (
        f"On {sum(provenance.test_counts)} images of the {provenance.scored_on}, which no step of the study saw before "
        "its end. Intervals of 95 % resample whole groups, such as all photographs of one lesion."
    )
    if provenance.refitted:
        note += (
            " **These are the scores of the models of the folds.** The models in this file were trained once more, by "
            "the same recipe on all rows of the folds; no row was left to score them."
        )
    return "\n".join([note, "", "| score | value |", "| --- | --- |", *lines])


def _headline(provenance: Provenance) -> list[str]:
    """Returns the names of the scores on the test part that are of no single class, without "test_"."""
    names = [name.removeprefix("test_") for name in provenance.scores if name.startswith("test_")]
    return [
        name for name in names if not name.endswith(("_low", "_high", "_sd")) and name.partition("_")[0] not in _RATES
    ]


# Scores of a class are called "<rate>_<class>".
_RATES = ("recall", "precision", "f1", "energy", "pointing")


def _with_interval(scores: dict[str, float], name: str) -> str:
    value, low, high = (scores.get(f"test_{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    return f"{value:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")


def _classes(facts: BundleFacts) -> str:
    provenance = facts.provenance
    total = sum(provenance.class_counts)
    lines = [
        f"| {_cell(name)} | {count} | {count / total:.1%} | {num_test} | "
        f"{_with_interval(provenance.scores, f'recall_{name}')} | "
        f"{_with_interval(provenance.scores, f'precision_{name}')} |"
        for name, count, num_test in zip(
            facts.class_names, provenance.class_counts, provenance.test_counts, strict=True
        )
    ]
    note = (
        "Recall: of the test images of this class, the share that it finds. Precision: of the test images that it "
        "gives this class, the share that is right; it falls where the class is rarer. These intervals of 95 % are "
        "Wilson's, with as many trials as groups."
    )
    heading = ["| class | training images | share | test images | recall | precision |", "| --- " + "| ---: " * 5 + "|"]
    return "\n".join([*heading, *lines, "", note])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _training(facts: BundleFacts) -> str:
    provenance = facts.provenance
    backbones = ", ".join(sorted({encoder.backbone for encoder in facts.encoders}))
    groups = f" of {provenance.num_groups} groups" if provenance.num_groups else ", each a group of its own"
    views = sorted({view for head in facts.heads for view in head.weights})
    parts = f"{_number(len(facts.heads), 'head')} on {_number(len(facts.encoders), 'encoder')} ({backbones})"
    without = f", and {provenance.num_unlabelled} without labels" if provenance.num_unlabelled else ""
    lines = [
        f"Models: {parts}, averaged over the test-time views {', '.join(views)}",
        f"Settings: {provenance.settings or 'those of the command'}",
        f"Data: {_data(provenance)}",
        f"Rows: {sum(provenance.class_counts)}{groups}{without}; their digest is {provenance.manifest}",
        f"Chosen on: {provenance.chosen_on}",
    ]
    return "\n".join(f"- {line}." for line in lines)


def _data(provenance: Provenance) -> str:
    """Returns the sources of the rows, with the last name of each path: the others are of the machine."""
    data = provenance.data
    collections = data.get("collections") or [data]
    named = [f"{part['source']} {PurePath(part.get('path') or '').name}".strip() for part in collections if part]
    return ", ".join(named) or "not recorded"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _versions(provenance: Provenance) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    return f"Trained by commit {provenance.commit}, packed with {versions}."
