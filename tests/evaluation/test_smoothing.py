import numpy as np
import pytest

from raysk.evaluation.smoothing import LEAST_SETTINGS, smoothed


def draw(rng, num_settings):
    """Returns settings of a head and its rate, which one head lacks, and their true scores."""
    heads = rng.choice(["linear", "cosine", "ncm"], num_settings)
    rates = 10 ** rng.uniform(-4, -1, num_settings)
    passes = rng.choice([1, 2, 4], num_settings)
    values = [
        {"head": head, "passes": int(number)} | ({} if head == "ncm" else {"lr": float(rate)})
        for head, rate, number in zip(heads, rates, passes, strict=True)
    ]
    truth = 0.4 + 0.05 * (heads == "cosine") - 0.02 * (heads != "ncm") * np.abs(np.log10(rates) + 2.5) + 0.005 * passes
    return values, truth


def test_the_smoothed_choice_is_better_than_that_of_the_best_score():
    luck, guided = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        values, truth = draw(rng, 200)
        scores = truth + rng.normal(0, 0.03, 200)
        luck.append(truth.max() - truth[scores.argmax()])
        guided.append(truth.max() - truth[smoothed(values, scores).argmax()])
    assert np.mean(guided) < 0.9 * np.mean(luck)


def test_without_noise_smoothing_keeps_the_order_of_settings():
    values, truth = draw(np.random.default_rng(0), 200)
    assert np.corrcoef(smoothed(values, truth), truth)[0, 1] > 0.9


@pytest.mark.parametrize("num_settings", [1, LEAST_SETTINGS - 1])
def test_few_settings_keep_their_scores(num_settings):
    values, truth = draw(np.random.default_rng(0), num_settings)
    assert smoothed(values, truth) is truth


def test_diverged_settings_stay_undefined_and_do_not_affect_others():
    rng = np.random.default_rng(0)
    values, truth = draw(rng, 100)
    diverged = [{"head": "linear", "passes": 1, "lr": 100.0 + number} for number in range(20)]
    expected = smoothed(values + diverged, np.concatenate([truth, np.full(20, np.nan)]))
    assert np.isnan(expected[100:]).all() and (expected[:100] > 0.3).all()


def test_smoothing_is_deterministic():
    values, truth = draw(np.random.default_rng(0), 60)
    before = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(smoothed(values, truth), smoothed(values, truth))
    np.testing.assert_array_equal(before, np.random.get_state()[1])
