import numpy as np
import pytest

from raysk.data.folds.placement import place_groups


def counts_of(composition: np.ndarray, parts: np.ndarray, num_parts: int) -> np.ndarray:
    return np.array([composition[parts == part].sum(axis=0) for part in range(num_parts)])


def place(composition: np.ndarray, shares: list[float], seed: int = 0) -> np.ndarray:
    return counts_of(composition, place_groups(composition, np.array(shares), np.random.default_rng(seed)), len(shares))


def test_even_groups_are_divided_exactly() -> None:
    composition = np.repeat(np.eye(3, dtype=np.int64), [40, 12, 4], axis=0)
    assert place(composition, [0.25] * 4).tolist() == [[10, 3, 1]] * 4
    assert place(composition, [0.25, 0.25, 0.5]).tolist() == [[10, 3, 1], [10, 3, 1], [20, 6, 2]]


def test_large_and_small_groups_fill_parts_evenly() -> None:
    composition = np.array([[6], [4], [3], [3], [2], [2], [2], [1], [1]])
    assert sorted(place(composition, [0.5, 0.5]).ravel().tolist()) == [12, 12]


@pytest.mark.parametrize("seed", range(5))
def test_no_single_move_improves_the_shares_of_mixed_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    composition = rng.poisson([3.0, 1.0, 0.3], (40, 3))
    composition = composition[composition.sum(axis=1) > 0]
    shares = np.array([0.4, 0.4, 0.2])
    parts = place_groups(composition, shares, np.random.default_rng(seed))
    targets = shares[:, None] * composition.sum(axis=0)

    def cost(divided: np.ndarray) -> float:
        return float((((counts_of(composition, divided, 3) - targets) / targets) ** 2).sum())

    reached = cost(parts)
    for group in range(len(composition)):
        for part in range(3):
            moved = parts.copy()
            moved[group] = part
            assert cost(moved) >= reached - 1e-6 or not counts_of(composition, moved, 3).all()


def test_a_class_with_a_group_for_each_part_is_in_every_part() -> None:
    composition = np.repeat(np.eye(2, dtype=np.int64), [200, 4], axis=0)
    assert place(composition, [0.33, 0.33, 0.33, 0.01])[:, 1].tolist() == [1, 1, 1, 1]
