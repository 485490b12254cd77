import pytest
import torch

from raysk.parts.losses.weights import class_weights


def weights_of(name, counts, beta=0.999):
    return class_weights[name](torch.as_tensor(counts, dtype=torch.float64), beta).tolist()


def test_balanced_weights_of_ham(ham):
    expected = [1.2855, 0.2134, 2.7835, 4.3753, 1.3018, 12.441, 10.0755]
    assert weights_of("balanced", ham) == pytest.approx(expected, abs=5e-5)


def test_class_balanced_weights_of_ham(ham):
    expected = [0.3887, 0.2614, 0.6494, 0.9356, 0.3914, 2.4021, 1.9713]
    assert weights_of("effective", ham) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "numerator"),
    [
        ("none", None),
        ("balanced", 10015 / 7),
        ("max", 6705),
        ("median", 514),
        ("inverse", 7 / sum(1 / n for n in [1113, 6705, 514, 327, 1099, 115, 142])),
    ],
)
def test_weights_of_ham_are_a_number_over_the_count(ham, name, numerator):
    expected = [1.0] * 7 if numerator is None else [numerator / n for n in ham.tolist()]
    assert weights_of(name, ham) == pytest.approx(expected, rel=1e-12)


def test_effective_weights_are_the_formula_written_out(ham):
    raw = [(1 - 0.99) / (1 - 0.99**n) for n in ham.tolist()]
    expected = [7 * weight / sum(raw) for weight in raw]
    assert weights_of("effective", ham, beta=0.99) == pytest.approx(expected, rel=1e-9)


def test_effective_weights_move_from_none_to_inverse_as_beta_grows(ham):
    assert weights_of("effective", ham, beta=0.0) == pytest.approx([1.0] * 7)
    assert weights_of("effective", ham, beta=1 - 1e-12) == pytest.approx(weights_of("inverse", ham), rel=1e-6)


def test_the_median_of_two_classes_lies_between_them():
    assert weights_of("median", [10, 30]) == pytest.approx([2.0, 2 / 3])
