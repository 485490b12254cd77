"""Stage-two settings per minute on the features of a frozen encoder, each fitted and scored on all folds.

Without `--data` the features are noise about a centre of each class, in the sizes of HAM10000 (6,012 rows, 7 classes);
with it, they are the features of its images from a resnet18 with random weights, which need the same arithmetic. All
contenders get the same folds and train linear heads for the same epochs in batches of the same size; their held-out
predictions are scored together.

- ours: `fit_heads` on all settings at once, then `many_logits` and macro-F1. Settings mix losses, class weights, tau,
  samplers, optimizers, learning rates and weight decays, drawn at random.
- one by one: the usual pattern, the first few of the same settings, each with a `DataLoader` over a `TensorDataset`,
  torch's optimizer and the same loss modules; batches are made in the training process, and by two loader processes.
  Its rate is that of these few. It draws other batches, so its scores are near ours and not the same.
- scikit-learn: `LogisticRegression` to convergence or 200 iterations, with and without balanced class weights, over
  several L2 penalties: the settings that it has. Its macro-F1 is compared with ours for cross entropy, with and without
  balanced weights, over as many learning rates; the table shows the best of each, which flatters both alike.

The machine may be shared: for ours, the best and all repeats are shown. Memory is the peak of the process after ours
and before the others.
"""

import argparse
import resource
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.sources import DataSettings, load_manifest
from raysk.data.store.building import build_store
from raysk.evaluation.metrics.base import mean_of_defined
from raysk.evaluation.metrics.class_counts import count_classes
from raysk.parts.samplers import PowerSampler
from raysk.recipe import Model
from raysk.stage_two import StageTwo
from raysk.training.features import encode
from raysk.training.images import plain_images
from raysk.training.networks import new_encoder
from raysk.training.optimization import create_optimizer, learning_rate
from raysk.training.stage_two_search.many_heads import fit_heads, many_logits
from raysk.training.world import World

CLASS_COUNTS = (1113, 4023, 514, 327, 1099, 115, 142)  # HAM10000's, with fewer of its most frequent class
WIDTH = 512
NUM_FOLDS = 3
EPOCHS = 20
PENALTIES = (0.01, 0.1, 1.0)
RATES = (0.01, 0.03, 0.1)
ENCODED_PIXELS = 64

Fold = tuple[np.ndarray, np.ndarray]  # training rows and held-out rows


def drawn_data(seed: int) -> tuple[Tensor, np.ndarray, list[Fold]]:
    """Returns features (N, D), labels (N,) and folds of noise about a centre of each class."""
    random = np.random.default_rng(seed)
    counts = [round(count * 6012 / sum(CLASS_COUNTS)) for count in CLASS_COUNTS]
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = 0.15 * random.standard_normal((len(counts), WIDTH))
    features = np.maximum(centres[labels] + random.standard_normal((len(labels), WIDTH)), 0)
    fold = random.permutation(np.arange(len(labels)) % NUM_FOLDS)
    folds = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(NUM_FOLDS)]
    return standardised(torch.from_numpy(features).float()), labels, folds


def encoded_data(table: Path, cache: Path, seed: int) -> tuple[Tensor, np.ndarray, list[Fold]]:
    """Returns features (N, D), labels (N,) and folds of the images of a table, its groups kept together."""
    settings = DataSettings(source="csv", path=str(table), image="file", label="label", group="group")
    manifest = load_manifest(settings, cache)
    store, _ = build_store(manifest, ENCODED_PIXELS, cache)
    torch.manual_seed(seed)
    encoder = new_encoder(Model(backbone="resnet18"), ENCODED_PIXELS)
    features = encode(encoder, np.arange(len(manifest)), plain_images(store), World(0, 1, torch.device("cpu")))
    folds = make_folds(manifest, FoldSettings(k=NUM_FOLDS, seed=seed, test_share=0.0))
    rows = [(folds.train_rows(fold), folds.held_out_rows(fold)) for fold in range(NUM_FOLDS)]
    return standardised(features), manifest.labels, rows


def standardised(features: Tensor) -> Tensor:
    """Returns features of mean 0 and variance 1, for all contenders: scikit-learn's penalty and solver need them."""
    return (features - features.mean(dim=0)) / features.std(dim=0).clamp_min(1e-6)


def drawn_settings(number: int, batch_size: int, seed: int) -> list[StageTwo]:
    """Draws stage-two settings of linear heads."""
    random = np.random.default_rng(seed)
    weights = ["none", "balanced", "effective", "median"]

    def loss() -> dict[str, object]:
        return [
            {"name": "cross_entropy", "weights": random.choice(weights), "label_smoothing": random.uniform(0, 0.2)},
            {"name": "focal", "gamma": random.uniform(0.5, 5), "weights": random.choice(weights)},
            {"name": "balanced_softmax"},
            {"name": "logit_adjustment", "tau": random.uniform(0.25, 2)},
            {"name": "label_aware_smoothing", "head_smoothing": random.uniform(0, 0.4)},
        ][random.integers(5)]

    def optimizer() -> dict[str, object]:
        name = random.choice(["sgd", "adamw"])
        lowest, highest = {"sgd": (-3, -1), "adamw": (-4, -2)}[name]
        rate, decay = 10 ** random.uniform(lowest, highest), 10 ** random.uniform(-6, -2)
        return {"name": name, "lr": rate, "weight_decay": decay, "schedule": random.choice(["cosine", "step"])}

    samplers = ["instance", "square_root", "class_balanced"]
    fixed = {"epochs": EPOCHS, "batch_size": batch_size}
    return [
        StageTwo.from_plain(
            fixed | {"loss": loss(), "optimizer": optimizer(), "sampler": {"name": random.choice(samplers)}}
        )
        for _ in range(number)
    ]


def fit_at_once(stages: Sequence[StageTwo], features: Tensor, labels: np.ndarray, folds: Sequence[Fold]) -> np.ndarray:
    """Returns the macro-F1 of every setting, (M,), over the held-out rows of all folds."""
    num_classes = int(labels.max()) + 1
    predicted = np.empty((len(stages), len(labels)), np.int64)
    for number, (train, held_out) in enumerate(folds):
        heads = fit_heads(stages, {"none": features[None, train]}, labels[train], num_classes, 0, number)
        for first in range(0, len(heads), 128):
            logits = many_logits(heads[first : first + 128], features[None, held_out])
            predicted[first : first + 128, held_out] = logits[:, 0].argmax(dim=-1).numpy()
    scores = mean_of_defined(count_classes(predicted, labels, num_classes).f1())
    return scores


def fit_one_by_one(
    stages: Sequence[StageTwo], features: Tensor, labels: np.ndarray, folds: Sequence[Fold], num_workers: int
) -> np.ndarray:
    """Returns the macro-F1 of every setting, (M,), from the usual training loop for each."""
    num_classes = int(labels.max()) + 1
    predicted = np.empty((len(stages), len(labels)), np.int64)
    for train, held_out in folds:
        for place, stage in enumerate(stages):
            head = fitted_with_a_loader(stage, features[train], torch.from_numpy(labels[train]), num_workers)
            with torch.no_grad():
                predicted[place, held_out] = head(features[held_out]).argmax(dim=1).numpy()
    scores = mean_of_defined(count_classes(predicted, labels, num_classes).f1())
    return scores


def fitted_with_a_loader(stage: StageTwo, features: Tensor, labels: Tensor, num_workers: int) -> nn.Module:
    """Fits one linear head with a `DataLoader`."""
    counts = labels.bincount()
    if not isinstance(stage.sampler, PowerSampler):
        raise SystemExit(f"the sampler must draw classes by a power of their size, but got {stage.sampler}")
    shares = torch.from_numpy(stage.sampler.probabilities(counts.numpy()))
    weights = (shares / counts)[labels]
    data = TensorDataset(features, labels)
    sampler = RandomSampler(data) if stage.sampler.power == 1 else WeightedRandomSampler(weights.tolist(), len(labels))
    loader = DataLoader(
        data,
        batch_size=stage.batch_size,
        sampler=sampler,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    head, loss = nn.Linear(features.shape[1], len(counts)), stage.loss.build(counts)
    optimizer = create_optimizer(stage.optimizer, head.parameters())
    num_steps, step = stage.epochs * len(loader), 0
    for _ in range(stage.epochs):
        for inputs, targets in loader:
            optimizer.param_groups[0]["lr"] = learning_rate(stage.optimizer, step, num_steps)
            optimizer.zero_grad()
            loss(head(inputs), targets).backward()
            optimizer.step()
            step += 1
    return head


def logistic_regressions(features: Tensor, labels: np.ndarray, folds: Sequence[Fold]) -> np.ndarray:
    """Returns the macro-F1 of scikit-learn's settings, (without and with balanced weights, penalties)."""
    num_classes = int(labels.max()) + 1
    predicted = np.empty((2, len(PENALTIES), len(labels)), np.int64)
    rows = features.numpy()
    for train, held_out in folds:
        for row, weights in enumerate((None, "balanced")):
            for column, strength in enumerate(PENALTIES):
                model = LogisticRegression(C=strength, class_weight=weights, max_iter=200)
                predicted[row, column, held_out] = model.fit(rows[train], labels[train]).predict(rows[held_out])
    scores = mean_of_defined(count_classes(predicted, labels, num_classes).f1())
    return scores


def timed(fit: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """Returns the scores of a contender, and its settings per minute."""
    began = perf_counter()
    scores = fit()
    return scores, 60 * scores.size / (perf_counter() - began)


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)  # The docstring says after how many iterations it stops.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with metadata.csv (file, label, group); drawn if not given")
    parser.add_argument("--settings", type=int, default=1500)
    parser.add_argument("--few", type=int, default=4, help="number of settings that are fitted one by one")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3, help="repeats of ours")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="bench-") as cache:
        folder = options.data
        data = drawn_data(0) if folder is None else encoded_data(folder / "metadata.csv", Path(cache), 0)
    stages = drawn_settings(options.settings, options.batch_size, seed=0)
    runs = [timed(lambda: fit_at_once(stages, *data)) for _ in range(options.repeats)]
    rates = [rate for _, rate in runs]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of KiB
    few = stages[: options.few]
    usual = {number: timed(lambda number=number: fit_one_by_one(few, *data, num_workers=number)) for number in (0, 2)}
    regressions, regression_rate = timed(lambda: logistic_regressions(*data))
    same = {weights: fit_at_once(alike(weights, options.batch_size), *data).max() for weights in ("none", "balanced")}
    sizes = f"{len(data[1]):,} rows of {data[0].shape[1]}, {NUM_FOLDS} folds, {EPOCHS} epochs"
    best, scores = max(rates), runs[0][0]
    table = Table(title=f"{sizes}, batches of {options.batch_size}, {options.threads} threads")
    for column in ("contender", "settings", "settings a minute", "ours is faster by", "macro-F1 of the first few"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    table.add_row("ours", f"{len(stages)}", f"{best:,.0f}", "", f"{scores[: len(few)].mean():.3f}")
    for number, (usual_scores, rate) in usual.items():
        name = f"one by one, {number} loader processes"
        table.add_row(name, f"{len(few)}", f"{rate:,.1f}", f"{best / rate:,.0f}", f"{usual_scores.mean():.3f}")
    table.add_row(
        "scikit-learn", f"{regressions.size}", f"{regression_rate:,.1f}", f"{best / regression_rate:,.0f}", ""
    )
    console = Console(width=120)
    console.print(table)
    console.print(f"ours, all repeats: {', '.join(f'{rate:,.0f}' for rate in rates)}; peak memory {memory:.2f} GiB")
    table = Table(title="best macro-F1 of cross entropy")
    for column in ("class weights", "ours", "scikit-learn"):
        table.add_column(column)
    for (weights, score), of_sklearn in zip(same.items(), regressions, strict=True):
        table.add_row(weights, f"{score:.3f}", f"{of_sklearn.max():.3f}")
    console.print(table)


def alike(weights: str, batch_size: int) -> list[StageTwo]:
    """Returns settings of cross entropy over the rates, for comparison with scikit-learn's."""
    loss = {"name": "cross_entropy", "weights": weights}
    optimizers = [{"name": "adamw", "lr": rate, "weight_decay": 0.01} for rate in RATES]
    plain = {"loss": loss, "epochs": EPOCHS, "batch_size": batch_size}
    return [StageTwo.from_plain(plain | {"optimizer": optimizer}) for optimizer in optimizers]


if __name__ == "__main__":
    main()
