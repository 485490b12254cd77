"""The model card of a bundle, in Markdown (Mitchell et al. 2019, "Model Cards for Model Reporting")."""

from raysk.inference.bundle import BundleFacts, Provenance


def card_of(facts: BundleFacts) -> str:
    """Returns the model card."""
    provenance = facts.provenance
    return "\n\n".join(
        [
            f"# {provenance.name}",
            _summary(facts),
            "## Classes\n\n" + _classes(facts),
            "## Scores that its study promised\n\n" + _scores(provenance),
            "## Training\n\n" + _training(facts),
            "## Limits\n\n" + _limits(provenance),
            "## Licences\n\n"
            + f"- Weights: {provenance.weights_licence}.\n- Images: {provenance.data_licence}.",
            "## Repeat\n\n    " + provenance.command + "\n\n" + _versions(provenance),
        ]
    ) + "\n"  # fmt: skip


def _summary(facts: BundleFacts) -> str:
    sizes = " and ".join(map(str, facts.image_sizes))
    views = len({view for head in facts.heads for view in head.weights})
    return (
        f"A classifier of images into {len(facts.class_names)} classes, made by raysk on {facts.provenance.created}. "
        f"It averages {len(facts.heads)} heads on {len(facts.encoders)} encoders over {views} test-time "
        f"view{'s' * (views != 1)} of each image, at {sizes} pixels. An image is scaled so that its shorter side has "
        "this size, and cropped to its centre."
    )


def _classes(facts: BundleFacts) -> str:
    counts = facts.provenance.class_counts
    lines = [
        f"| {name} | {count} | {count / sum(counts):.1%} |"
        for name, count in zip(facts.class_names, counts, strict=True)
    ]
    return "\n".join(["| class | training images | share |", "| --- | ---: | ---: |", *lines])


def _scores(provenance: Provenance) -> str:
    scores = provenance.scores
    names = [
        name
        for name in scores
        if name.startswith("test_") and not name.endswith(("_low", "_high", "_sd")) and name != "test_"
    ]
    lines = [f"| {name.removeprefix('test_').replace('_', ' ')} | {_with_interval(scores, name)} |" for name in names]
    note = (
        f"On {provenance.num_locked} images of the {provenance.scored_on}, which no step of the study saw before its "
        "end. Intervals of 95 % resample whole groups."
    )
    if provenance.refitted:
        note += " They are those of the models of the folds; this model was trained once more on all rows."
    return "\n".join([note, "", "| score | value |", "| --- | --- |", *lines])


def _with_interval(scores: dict[str, float], name: str) -> str:
    low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{scores[name]:.3f}{interval}"


def _training(facts: BundleFacts) -> str:
    provenance = facts.provenance
    backbones = ", ".join(sorted({encoder.backbone for encoder in facts.encoders}))
    groups = f" of {provenance.num_groups} groups" if provenance.num_groups else ", each a group of its own"
    return (
        f"- Backbones: {backbones}.\n- Rows: {sum(provenance.class_counts)}{groups}; their digest is "
        f"{provenance.manifest}.\n- Chosen on: {provenance.chosen_on}.\n- Settings: {provenance.settings or 'none'}."
    )


def _limits(provenance: Provenance) -> str:
    return (
        "The probabilities fit the class shares above; where the classes are distributed otherwise, they do not. "
        "`raysk evaluate` measures both, with and without a correction. The scores hold for images like those of its "
        "study: another camera, clinic or population may give others. It is no medical device."
    )


def _versions(provenance: Provenance) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    return f"Trained by commit {provenance.commit}, packed with {versions}."
