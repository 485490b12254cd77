"""Do 95 % intervals of macro-F1 cover it, and do tests of equal recipes stay quiet, where a class has few groups?

    python benchmarks/coverage.py [--worlds 4000] [--part intervals|tests]

Populations have the seven classes of HAM10000 in its shares; a data set has 5, 8 or 15 groups of the rarest class.
Groups have 1 to 3 images of one class, whose predictions are alike. A classifier is a fixed table of how often it
predicts each class for each class, so its true macro-F1 is known: the usual one is about as good as those of
docs/results.md (0.57), the others are weak (0.38) and strong (0.87). The data sets of "fixed" have class counts in
proportion, as a stratified test part has; those of "drawn" have random counts. For tests all recipes have the same true
macro-F1. Recipes that are "alike" have one table; the "unlike" ones give up accuracy on common classes for rare ones.
Recipes find the same groups hard.

raysk uses the last method of each table. The spread comes from the same kind of resamples as in `raysk.evaluation`, but
for many data sets at once.
"""

import argparse
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy.special import ndtr, ndtri, stdtr

from raysk.evaluation.comparison import holm
from raysk.evaluation.intervals import degrees_of_freedom, score_interval

LESIONS = np.array([5403, 727, 614, 327, 228, 98, 73])  # nv, bkl, mel, bcc, akiec, vasc, df
USUAL = np.array([
    [0.880, 0.050, 0.050, 0.010, 0.005, 0.003, 0.002],
    [0.220, 0.550, 0.140, 0.030, 0.050, 0.002, 0.008],
    [0.300, 0.140, 0.500, 0.020, 0.030, 0.005, 0.005],
    [0.080, 0.080, 0.040, 0.640, 0.100, 0.030, 0.030],
    [0.060, 0.200, 0.080, 0.180, 0.440, 0.010, 0.030],
    [0.100, 0.040, 0.050, 0.080, 0.010, 0.710, 0.010],
    [0.200, 0.180, 0.050, 0.120, 0.070, 0.020, 0.360],
])  # fmt: skip
NUM_CLASSES = len(LESIONS)
STRONG = 0.7 * np.eye(NUM_CLASSES) + 0.3 * USUAL
WEAK = 0.5 * USUAL + 0.5 * np.array([0.7, 0.1, 0.1, 0.1, 0, 0, 0])
POPULATIONS = (
    ("weak", WEAK, "fixed"),
    ("usual", USUAL, "fixed"),
    ("usual", USUAL, "drawn"),
    ("strong", STRONG, "fixed"),
)
RAREST = (5, 8, 15)
BATCH, SAMPLES = 50, 500
TAILS = np.array([0.025, 0.975])

# The groups of many data sets, by class: how many images of each group get each class, (D, n_c, C).
Groups = list[np.ndarray]


def f1(tables: np.ndarray) -> np.ndarray:
    """Returns the macro-F1 of tables (..., C, C) of labels and predictions, over the classes that occur."""
    hits, totals = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(axis=-1) + tables.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        scores: np.ndarray = np.nanmean(2 * hits / totals, axis=-1)
    return scores


def class_counts(random: np.random.Generator, rarest: int, design: str) -> np.ndarray:
    """Returns the number of groups of each class; drawn ones leave every class at least two."""
    counts = np.round(LESIONS * rarest / LESIONS[-1]).astype(int)
    if design == "fixed":
        return counts
    while True:
        drawn = random.multinomial(counts.sum(), LESIONS / LESIONS.sum())
        if drawn.min() >= 2:
            return drawn


def draw_groups(random: np.random.Generator, counts: np.ndarray, recipes: list[np.ndarray]) -> list[Groups]:
    """Returns the groups of `BATCH` data sets for each recipe, which predict the same groups right half of the time."""
    drawn: list[Groups] = [[] for _ in recipes]
    for label, num_groups in enumerate(counts):
        shape = (BATCH, num_groups, 3)
        sizes = random.choice([1, 2, 3], p=[0.73, 0.19, 0.08], size=shape[:2])
        is_alike, shared = random.random(shape) < 0.6, random.random(shape)
        order = np.r_[label, np.delete(np.arange(NUM_CLASSES), label)]
        for recipe, groups in zip(recipes, drawn, strict=True):
            chances = np.where(random.random((*shape[:2], 1)) < 0.5, shared, random.random(shape))
            # The label first, so that one chance makes two recipes right together.
            steps = recipe[label][order].cumsum()[:-1]
            predicted = order[np.searchsorted(steps, chances)]
            predicted = np.where(is_alike, predicted[..., :1], predicted)
            images = np.eye(NUM_CLASSES, dtype=np.float32)[predicted]
            groups.append((images * (np.arange(3) < sizes[..., np.newaxis])[..., np.newaxis]).sum(axis=2))
    return drawn


def resampled(groups: Groups, weights: np.ndarray) -> np.ndarray:
    """Returns the tables of each data set, (D, S, C, C), with weights (S, G) of the groups."""
    by_class = np.split(weights.astype(np.float32), np.cumsum([of_class.shape[1] for of_class in groups])[:-1], axis=1)
    rows = [np.tensordot(times, of_class, axes=(1, 1)) for times, of_class in zip(by_class, groups, strict=True)]
    return np.stack(rows, axis=-2).swapaxes(0, 1)


def totals(groups: Groups) -> np.ndarray:
    """Returns the table of each data set, (D, C, C)."""
    return np.stack([of_class.sum(axis=1) for of_class in groups], axis=1)


def plain(random: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Returns how often each resample has each group, (S, G)."""
    return random.multinomial(counts.sum(), np.full(counts.sum(), 1 / counts.sum()), size=SAMPLES)


def stratified(random: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Returns resamples that keep the number of groups of each class."""
    return np.hstack([random.multinomial(count, np.full(count, 1 / count), size=SAMPLES) for count in counts])


def smoothed(random: np.random.Generator, groups: Groups) -> np.ndarray:
    """Returns tables from Bayesian bootstraps of each class, with a pseudo-group that is half right."""
    tables = []
    for label, of_class in enumerate(groups):
        num_images = of_class.sum(axis=(1, 2))
        weights = random.standard_exponential((SAMPLES, of_class.shape[1])).astype(np.float32)
        row = np.tensordot(weights, of_class, axes=(1, 1)).swapaxes(0, 1)
        shapes = np.where(np.arange(NUM_CLASSES) == label, 0.5, 0.5 / (NUM_CLASSES - 1))
        pseudo = random.standard_gamma(shapes, size=(SAMPLES, NUM_CLASSES))
        row = row + pseudo * (num_images / of_class.shape[1])[:, np.newaxis, np.newaxis]
        tables.append(row / row.sum(axis=-1, keepdims=True) * num_images[:, np.newaxis, np.newaxis])
    return np.stack(tables, axis=-2)


def influences(groups: Groups, tables: np.ndarray) -> Iterator[np.ndarray]:
    """Yields for each class the derivatives of macro-F1 by its groups' weights, (D, S, n_c), at tables (D, S, C, C)."""
    sums = tables.sum(axis=-1) + tables.sum(axis=-2)
    slopes = 2 * np.diagonal(tables, axis1=-2, axis2=-1) / np.maximum(sums, 1e-9) ** 2
    for label, of_class in enumerate(groups):
        gradients = -slopes - slopes[..., label, np.newaxis]
        gradients[..., label] += 2 / np.maximum(sums[..., label], 1e-9)
        yield np.einsum("dsk,dnk->dsn", gradients / NUM_CLASSES, of_class, optimize=True)


def delta_spreads(groups: Groups, tables: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns standard errors by the delta method at tables (D, S, C, C) of weights (S, G), (D, S)."""
    by_class = np.split(weights, np.cumsum([of_class.shape[1] for of_class in groups])[:-1], axis=1)
    squares = [
        np.einsum("dsn,sn->ds", values**2, times.astype(np.float32))
        for values, times in zip(influences(groups, tables), by_class, strict=True)
    ]
    return np.sqrt(sum(squares))


def intervals(random: np.random.Generator, groups: Groups, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the ends (D, 2) by each method."""
    table, times = totals(groups), plain(random, counts)
    tables = resampled(groups, times)
    score, scores, spread = f1(table), f1(tables), f1(tables).std(axis=1)
    ones = np.ones((1, counts.sum()))
    here = np.concatenate(list(influences(groups, table[:, np.newaxis])), axis=2)[:, 0]
    bias = ndtri(np.clip((scores < score[:, np.newaxis]).mean(axis=1), 1 / SAMPLES, 1 - 1 / SAMPLES))
    skewness = (here**3).sum(axis=1) / (6 * (here**2).sum(axis=1) ** 1.5)
    shifted = bias[:, np.newaxis] + ndtri(TAILS)
    accelerated = ndtr(bias[:, np.newaxis] + shifted / (1 - skewness[:, np.newaxis] * shifted))
    studentised = (scores - score[:, np.newaxis]) / np.maximum(delta_spreads(groups, tables, times), 1e-6)
    error = delta_spreads(groups, table[:, np.newaxis], ones)
    steps = np.outer(spread / (score * (1 - score)), ndtri(TAILS))
    kept = f1(resampled(groups, stratified(random, counts)))
    return {
        "percentile, as before": np.quantile(scores, TAILS, axis=1).T,
        "percentile, stratified by class": np.quantile(kept, TAILS, axis=1).T,
        "bias-corrected and accelerated": np.stack(
            [np.quantile(*pair) for pair in zip(scores, accelerated, strict=True)]
        ),
        "studentised (bootstrap-t)": score[:, np.newaxis] - error * np.quantile(studentised, TAILS[::-1], axis=1).T,
        "stratified Bayesian with pseudo-counts": np.quantile(f1(smoothed(random, groups)), TAILS, axis=1).T,
        "normal on the logit scale": 1 / (1 + (1 / score - 1)[:, np.newaxis] * np.exp(-steps)),
        "Wilson with Student's quantile": np.array(
            [score_interval(*pair, counts, (0, 1), 0.95) for pair in zip(score, spread, strict=True)]
        ),
    }  # fmt: skip


def show_intervals(num_worlds: int) -> None:
    """Prints how often the intervals cover the truth, and their mean width."""
    print("| classifier | class counts | method |", " | ".join(f"{rarest} groups, width" for rarest in RAREST), "|")
    print("|---|---|---|" + "--:|" * len(RAREST))
    for name, recipe, design in POPULATIONS:
        cells: dict[str, list[str]] = {}
        for rarest in RAREST:
            random, ends, truths = np.random.default_rng(rarest), {}, []
            for _ in range(num_worlds // BATCH):
                counts = class_counts(random, rarest, design)
                shares = (counts if design == "fixed" else LESIONS)[:, np.newaxis]
                truths += [f1(shares * recipe)] * BATCH
                for method, pairs in intervals(random, draw_groups(random, counts, [recipe])[0], counts).items():
                    ends.setdefault(method, []).append(pairs)
            for method, batches in ends.items():
                low, high = np.concatenate(batches).T
                covered = ((low <= truths) & (truths <= high)).mean()
                cells.setdefault(method, []).append(f"{covered:.3f}, {(high - low).mean():.3f}")
        for method, texts in cells.items():
            print(f"| {name} | {design} | {method} | {' | '.join(texts)} |", flush=True)


def equal_recipes(kind: str, shares: np.ndarray) -> list[np.ndarray]:
    """Returns four recipes of one true macro-F1; the unlike ones are better at the two rarest classes only."""
    target, low, high = f1(shares[:, np.newaxis] * USUAL), 0.0, 0.9
    is_rare = np.arange(NUM_CLASSES)[:, np.newaxis] >= NUM_CLASSES - 2

    def traded(share: float) -> np.ndarray:
        wrong = USUAL * (1 - np.eye(NUM_CLASSES))
        worse = (1 - share) * USUAL + share * wrong / wrong.sum(axis=1, keepdims=True)
        return np.where(is_rare, 0.5 * USUAL + 0.5 * np.eye(NUM_CLASSES), worse)

    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if f1(shares[:, np.newaxis] * traded(middle)) > target else (low, middle)
    return [USUAL] * 4 if kind == "alike" else [USUAL, traded(low)] * 2


def p_values(
    random: np.random.Generator, first: Groups, second: Groups, counts: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Returns the p-value of the difference of two recipes on each data set, (D,), by each method."""
    difference = (f1(totals(first)) - f1(totals(second)))[:, np.newaxis]
    times = plain(np.random.default_rng(seed), counts)
    resamples = f1(resampled(first, times)) - f1(resampled(second, times))
    kept = random.integers(2, size=(SAMPLES, counts.sum()))
    change = resampled([one - other for one, other in zip(first, second, strict=True)], kept)
    swapped = f1(totals(second)[:, np.newaxis] + change) - f1(totals(first)[:, np.newaxis] - change)
    ratio = np.abs(difference[:, 0]) / np.maximum(resamples.std(axis=1), 1e-9)
    return {
        "bootstrap centred on the difference, as before": (
            1 + (np.abs(resamples - difference) >= np.abs(difference) - 1e-6).sum(axis=1)
        ) / (SAMPLES + 1),
        "Student's, with the spread of resamples": 2 * stdtr(degrees_of_freedom(counts), -ratio),
        "swaps within groups": (1 + (np.abs(swapped) >= np.abs(difference) - 1e-6).sum(axis=1)) / (SAMPLES + 1),
    }  # fmt: skip


def show_tests(num_worlds: int) -> None:
    """Prints how often tests of equal recipes find a difference: of one pair, and in any of six pairs after Holm."""
    print("| recipes | method |", " | ".join(f"{rarest} groups, family" for rarest in RAREST), "|")
    print("|---|---|" + "--:|" * len(RAREST))
    for kind in ("alike", "unlike"):
        cells: dict[str, list[str]] = {}
        for rarest in RAREST:
            random, found = np.random.default_rng(rarest), {}
            for batch in range(num_worlds // BATCH):
                counts = class_counts(random, rarest, "fixed")
                recipes = draw_groups(random, counts, equal_recipes(kind, counts))
                tested = [p_values(random, *pair, counts, batch) for pair in combinations(recipes, 2)]
                for method in tested[0]:
                    found.setdefault(method, []).append(np.stack([of_pair[method] for of_pair in tested], axis=1))
            for method, batches in found.items():
                single = np.concatenate(batches)
                family = np.array([holm(of_world).min() for of_world in single])
                cells.setdefault(method, []).append(f"{(single <= 0.05).mean():.3f}, {(family <= 0.05).mean():.3f}")
        for method, texts in cells.items():
            print(f"| {kind} | {method} | {' | '.join(texts)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=4000, help="data sets for each figure")
    parser.add_argument("--part", choices=("intervals", "tests"), help="one of the tables; both by default")
    arguments = parser.parse_args()
    if arguments.part != "tests":
        show_intervals(arguments.worlds)
    if arguments.part != "intervals":
        show_tests(arguments.worlds)


if __name__ == "__main__":
    main()
