import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raysk.errors import ConfigError
from raysk.parts.heads import FrozenClassifier, heads
from raysk.parts.losses import LogitLoss, losses
from raysk.stage_two import StageTwo
from raysk.training.batches import FeatureBatches, Plan
from raysk.training.loop import Trainer, hash_seed
from raysk.training.stage_two_search import many_heads
from raysk.training.stage_two_search.many_heads import fit_heads, many_logits
from raysk.training.world import World

SEED, FOLD, NUM_CLASSES, WIDTH, PASSES = 3, 1, 4, 10, 2


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(NUM_CLASSES), [40, 20, 9, 5]))


@pytest.fixture(scope="module")
def features(labels: np.ndarray) -> Tensor:
    """(P, N, D): noise about a vector of each class, all positive as pooled features are."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(NUM_CLASSES, WIDTH, generator=random)[torch.from_numpy(labels)]
    return (centres + torch.randn(PASSES, len(labels), WIDTH, generator=random)).relu()


@pytest.fixture(scope="module")
def start() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(NUM_CLASSES, WIDTH, generator=random), torch.randn(NUM_CLASSES, generator=random)


def stage_of(**settings: Any) -> StageTwo:
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.01} | settings.pop("optimizer", {})
    return StageTwo.from_plain({"epochs": 3, "batch_size": 16, "optimizer": optimizer} | settings)


def fitted_alone(
    stage: StageTwo, features: Tensor, labels: np.ndarray, start: tuple[Tensor, Tensor], folder: Path
) -> nn.Module:
    """Returns the head that the training loop fits for one setting, as stage two runs it."""
    world = World(0, 1, torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(hash_seed(SEED, FOLD, 2))
        head = stage.head.build(WIDTH, NUM_CLASSES)
        if isinstance(head, FrozenClassifier):
            head.start_from(features[0], torch.from_numpy(labels), *start)
        if any(True for _ in head.parameters()):
            loss = stage.loss.build(torch.from_numpy(labels).bincount(minlength=NUM_CLASSES))
            batches = FeatureBatches(features[: stage.passes], Plan(labels, stage, SEED, world))
            file = folder / "progress"
            trainer = Trainer(head, loss, stage, hash_seed(SEED, 2), world, ("key", FOLD), file)
            trainer.fit(batches, "stage two", lambda progress: None)
            file.unlink()
    return head.eval()


def assert_alike(actual: nn.Module, expected: nn.Module, what: object) -> None:
    values, expected_values = actual.state_dict(), expected.state_dict()
    assert values.keys() == expected_values.keys()
    for name, value in values.items():
        assert torch.allclose(value, expected_values[name], atol=1e-5, rtol=1e-5), f"{name} of {what}"


LOGIT_LOSSES = [name for name in losses if issubclass(losses[name], LogitLoss)]
OPTIMIZERS = [
    {},
    {"lr": 0.002, "weight_decay": 0.3, "schedule": "step"},
    {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.001, "warmup": 0.3},
    {"name": "sgd", "lr": 0.3, "momentum": 0.0, "schedule": "constant"},
]
HEADS = [
    {"name": "linear"},
    {"name": "cosine", "scale": 8.0},
    {"name": "mlp", "hidden": 6, "dropout": 0.4},
    {"name": "mlp", "hidden": 6, "dropout": 0.0},
    {"name": "lws"},
    {"name": "disalign"},
    {"name": "tau_norm", "tau": 0.5},
    {"name": "ncm"},
]


def loss_and_head(name: str) -> dict[str, Any]:
    return {"loss": {"name": name}, "head": losses[name]().head or {"name": "linear"}}


def mixed_stages() -> list[StageTwo]:
    """Every loss with every optimizer, over two samplers; every head; and all other settings of a stage."""
    samplers = itertools.cycle([{"name": "instance"}, {"name": "class_balanced"}])
    stages = [
        stage_of(**loss_and_head(name), optimizer=optimizer, sampler=next(samplers))
        for name in LOGIT_LOSSES
        for optimizer in OPTIMIZERS
    ]
    stages += [stage_of(head=head, optimizer=optimizer) for head in HEADS for optimizer in OPTIMIZERS[:3:2]]
    stages += [
        stage_of(loss={"name": "cross_entropy", "weights": "balanced", "label_smoothing": 0.1}),
        stage_of(loss={"name": "focal", "gamma": 0.5, "weights": "effective"}, epochs=2),
        stage_of(loss={"name": "logit_adjustment", "tau": 1.7}, batch_size=8, ema=0.9),
        stage_of(ema=0.8, optimizer=OPTIMIZERS[2]),
        stage_of(ema=0.5, passes=2),
        stage_of(passes=2),
        stage_of(passes=2, sampler={"name": "class_balanced"}),
        stage_of(sampler={"name": "class_balanced"}, defer_sampler=0.5),
        stage_of(loss={"name": "balanced_softmax", "weights": [1, 2, 3, 4], "defer": 0.3}),
        stage_of(loss={"name": "balanced_softmax", "weights": "effective", "defer": 0.7}),
        stage_of(loss={"name": "focal", "gamma": 5, "alpha": 0.25}),
        stage_of(batch_size=1000, accumulate=4),
        stage_of(accumulate=2, head={"name": "mlp", "hidden": 5}),
        stage_of(sampler={"name": "square_root"}, epochs=5),
        stage_of(**loss_and_head("gcl"), passes=2),
        stage_of(loss={"name": "gcl", "noise": 0.3, "scale": 8.0}, head={"name": "cosine", "scale": 8.0}, accumulate=2),
        stage_of(loss={"name": "vs", "gamma": 0.1, "tau": 0.5}, head={"name": "cosine", "scale": 8.0}),
        stage_of(loss={"name": "generalized_reweight", "rho": 0.5}, head={"name": "disalign"}),
    ]
    return stages


@pytest.mark.parametrize("block_settings", [1, 16, 1000])
def test_every_head_equals_that_of_the_training_loop(block_settings, features, labels, start, tmp_path, monkeypatch):
    monkeypatch.setattr(many_heads, "_BLOCK_SETTINGS", block_settings)
    stages = mixed_stages()
    random = np.random.default_rng(0)
    order = random.permutation(len(stages))
    state = torch.get_rng_state()
    fitted = fit_heads([stages[place] for place in order], {"none": features}, labels, NUM_CLASSES, SEED, FOLD, start)
    assert torch.equal(torch.get_rng_state(), state)
    for place, head in zip(order, fitted, strict=True):
        assert not head.training
        assert_alike(head, fitted_alone(stages[place], features, labels, start, tmp_path), stages[place])


def test_settings_of_several_views_are_fitted_together(features, labels, start, tmp_path):
    other = features[:1].flip(2)
    stages = [stage_of(view=view, head={"name": head}) for view in ("none", "medium") for head in ("linear", "cosine")]
    fitted = fit_heads(stages, {"none": features, "medium": other}, labels, NUM_CLASSES, SEED, FOLD)
    for stage, head in zip(stages, fitted, strict=True):
        of_view = features if stage.view == "none" else other
        assert_alike(head, fitted_alone(stage, of_view, labels, start, tmp_path), stage)


def test_the_mix_has_every_head_and_every_loss_on_logits():
    stages = mixed_stages()
    assert {heads.name_of(type(stage.head)) for stage in stages} == set(heads)
    assert {losses.name_of(type(stage.loss)) for stage in stages} == set(LOGIT_LOSSES)


def test_training_changes_a_head_and_settings_change_the_result(features, labels, start):
    """Otherwise the comparison above would compare untrained heads."""
    stages = [
        stage_of(),
        stage_of(epochs=2),
        stage_of(ema=0.9),
        stage_of(passes=2),
        stage_of(sampler={"name": "class_balanced"}),
        stage_of(loss={"name": "focal"}),
        *[stage_of(optimizer=changes) for changes in ({"lr": 0.02}, {"weight_decay": 3.0}, {"warmup": 0.5})],
    ]
    weights = [head.weight for head in fit_heads(stages, {"none": features}, labels, NUM_CLASSES, SEED, FOLD)]
    for first, second in itertools.combinations(weights, 2):
        assert (first - second).abs().max() > 1e-4


def test_a_setting_does_not_depend_on_the_others(features, labels, start):
    """Fits a setting alone, with similar settings, and with a mix in several blocks."""
    stages = [stage_of(optimizer={"lr": 0.001 * (1 + number)}) for number in range(40)]
    together = fit_heads(stages, {"none": features}, labels, NUM_CLASSES, SEED, FOLD)
    mixed = fit_heads([*mixed_stages(), stages[7]], {"none": features}, labels, NUM_CLASSES, SEED, FOLD, start)
    (alone,) = fit_heads([stages[7]], {"none": features}, labels, NUM_CLASSES, SEED, FOLD)
    assert_alike(together[7], alone, "together")
    assert_alike(mixed[-1], alone, "mixed")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_diverging_setting_spoils_no_other(name, features, labels):
    good = stage_of(optimizer={"name": name})
    wild = stage_of(optimizer={"name": name, "lr": 100.0, "weight_decay": 10.0, "schedule": "constant"}, epochs=3)
    huge = features * 1e12
    expected = fit_heads([good], {"none": huge}, labels, NUM_CLASSES, SEED, FOLD)[0]
    fitted = fit_heads([good, wild, good], {"none": huge}, labels, NUM_CLASSES, SEED, FOLD)
    logits = many_logits(fitted, huge)
    assert not logits[1].isfinite().all()
    assert logits[0].isfinite().all()
    assert_alike(fitted[0], expected, name)
    assert_alike(fitted[2], expected, name)


def test_the_number_of_threads_does_not_matter(features, labels):
    stages = [stage_of(optimizer={"lr": 0.001 * (1 + number)}) for number in range(40)]
    before = torch.get_num_threads()
    try:
        fitted = {}
        for number in (1, 3):
            torch.set_num_threads(number)
            fitted[number] = fit_heads(stages, {"none": features}, labels, NUM_CLASSES, SEED, FOLD)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)
    for actual, expected in zip(fitted[3], fitted[1], strict=True):
        assert_alike(actual, expected, "threads")


def test_logits_are_those_of_each_head(features, labels, start):
    linear = fit_heads([stage_of(), stage_of(ema=0.5)], {"none": features}, labels, NUM_CLASSES, SEED, FOLD)
    others = fit_heads(
        [stage_of(head=head) for head in HEADS], {"none": features}, labels, NUM_CLASSES, SEED, FOLD, start
    )
    for fitted in (linear, others, [linear[0], *others, linear[1]]):
        logits = many_logits(fitted, features)
        assert logits.shape == (len(fitted), PASSES, len(labels), NUM_CLASSES)
        assert not logits.requires_grad
        for actual, head in zip(logits, fitted, strict=True):
            torch.testing.assert_close(actual, head(features.flatten(0, 1)).view_as(actual))


def test_missing_passes_and_a_missing_start_are_refused(features, labels):
    with pytest.raises(ConfigError, match=r"^passes must be at most the 2 of the features, but got 3: "):
        fit_heads([stage_of(passes=3)], {"none": features}, labels, NUM_CLASSES, SEED, FOLD)
    with pytest.raises(ConfigError, match=r"^start must be given"):
        fit_heads([stage_of(head={"name": "lws"})], {"none": features}, labels, NUM_CLASSES, SEED, FOLD)


def test_no_stages_give_no_heads(features, labels):
    assert fit_heads([], {"none": features}, labels, NUM_CLASSES, SEED, FOLD) == []
