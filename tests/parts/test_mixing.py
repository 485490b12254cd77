import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.mixing import PairedBatch, mixings

COUNTS = torch.tensor([900, 300, 301, 10])


def batch(num_rows=4, height=6, width=10):
    random = np.random.default_rng(0)
    images, partners = random.integers(0, 256, (2, num_rows, 2, height, width, 3), dtype=np.uint8)
    labels, partner_labels = random.integers(0, 4, (2, num_rows))
    return PairedBatch(*(torch.from_numpy(values) for values in (images, labels, partners, partner_labels)))


def mix(mixing, pairs, seed=0):
    return mixing.mix(pairs, COUNTS, np.random.default_rng(seed))


def test_none_returns_the_batch_unchanged():
    pairs = batch()
    mixed = mix(mixings["none"](), pairs)
    assert mixed.images is pairs.images and mixed.labels is pairs.labels and mixed.share == 1


@pytest.mark.parametrize("name", ["mixup", "remix"])
def test_images_are_summed_by_their_share(name):
    images, _, partners, _ = pairs = batch()
    mixed = mix(mixings[name](alpha=1), pairs)
    expected_share = np.random.default_rng(0).beta(1, 1)
    assert mixed.share == pytest.approx(expected_share) and mixed.images.dtype == torch.float32
    for place in np.ndindex(images.shape):
        expected = expected_share * int(images[place]) + (1 - expected_share) * int(partners[place])
        assert float(mixed.images[place]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.2, 1, 8])
@pytest.mark.parametrize("name", ["mixup", "remix"])
def test_shares_are_drawn_from_the_beta_distribution(name, alpha):
    pairs = batch(1, 1, 1)
    random = np.random.default_rng(0)
    shares = [mixings[name](alpha=alpha).mix(pairs, COUNTS, random).share for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 12), width=st.integers(1, 12), alpha=st.floats(0.1, 5))
def test_cutmix_replaces_one_box_and_counts_its_pixels(seed, height, width, alpha):
    shape = (2, 2, height, width, 3)
    zeros, ones = torch.zeros(shape, dtype=torch.uint8), torch.ones(shape, dtype=torch.uint8)
    pairs = batch(2)._replace(images=zeros, partners=ones)
    mixed = mix(mixings["cutmix"](alpha=alpha), pairs, seed)
    taken = mixed.images[0, 0, :, :, 0].bool()
    assert (mixed.images.bool() == taken[None, None, :, :, None]).all()
    assert mixed.images.dtype == torch.uint8
    rows, columns = taken.any(dim=1).nonzero().flatten().tolist(), taken.any(dim=0).nonzero().flatten().tolist()
    if rows:
        assert rows == list(range(rows[0], rows[-1] + 1)) and columns == list(range(columns[0], columns[-1] + 1))
    assert int(taken.sum()) == len(rows) * len(columns)
    assert mixed.share == pytest.approx(1 - len(rows) * len(columns) / (height * width))


def test_boxes_have_the_drawn_area_and_centre():
    height, width = 100, 60
    shape = (1, 1, height, width, 1)
    zeros, ones = torch.zeros(shape, dtype=torch.uint8), torch.ones(shape, dtype=torch.uint8)
    pairs = batch(1)._replace(images=zeros, partners=ones)
    cut_off = 0
    for seed in range(100):
        mixed = mix(mixings["cutmix"](), pairs, seed)
        taken = mixed.images[0, 0, :, :, 0]
        random = np.random.default_rng(seed)
        side = np.sqrt(1 - random.beta(1, 1))
        middle = random.random() * height, random.random() * width
        for places, centre, length in ((taken.any(dim=1), middle[0], height), (taken.any(dim=0), middle[1], width)):
            begin, end = centre - side * length / 2, centre + side * length / 2
            cut_off += begin < 0 or end > length
            for place in range(length):
                if begin + 1 < place and place + 1 < end - 1:  # within a pixel of an edge rounding decides
                    assert places[place]
                elif place + 1 < begin - 1 or place > end + 1:
                    assert not places[place]
    assert 20 < cut_off < 180


def test_cutmix_leaves_a_share_of_the_batches_as_they_are():
    mixed = mixings["cutmix"](probability=0.3)
    shares = []
    for seed in range(400):
        pairs = batch(2)
        result, always = mix(mixed, pairs, seed), mix(mixings["cutmix"](), pairs, seed)
        if result.share == 1:
            assert torch.equal(result.images, pairs.images)
        else:
            assert torch.equal(result.images, always.images) and result.share == always.share
        shares.append(result.share)
    assert 0.2 < np.mean(np.array(shares) < 1) < 0.35


@pytest.mark.parametrize("kappa", [2.0, 3.0, 200.0])
@pytest.mark.parametrize("tau", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_remix_gives_the_label_to_the_rare_class(kappa, tau):
    labels, partner_labels = torch.tensor([[a, b] for a in range(4) for b in range(4)]).T
    images = torch.zeros(16, 1, 1, 1, 3, dtype=torch.uint8)
    for seed in range(20):
        mixed = mix(mixings["remix"](kappa=kappa, tau=tau), PairedBatch(images, labels, images, partner_labels), seed)
        for i in range(16):
            a, b = int(labels[i]), int(partner_labels[i])
            ratio = int(COUNTS[a]) / int(COUNTS[b])
            label_share = mixed.share
            if ratio >= kappa and mixed.share < tau:
                label_share = 0
            elif ratio <= 1 / kappa and 1 - mixed.share < tau:
                label_share = 1
            target = np.zeros(4)
            target[a] += label_share
            target[b] += 1 - label_share
            result = np.zeros(4)
            result[mixed.labels[i]] += mixed.share
            result[mixed.partner_labels[i]] += 1 - mixed.share
            np.testing.assert_allclose(result, target)


def test_a_class_is_common_from_kappa_times_as_many_rows():
    labels, partner_labels = torch.tensor([0, 0]), torch.tensor([1, 2])  # 900 to 300, 900 to 301
    images = torch.zeros(2, 1, 1, 1, 3, dtype=torch.uint8)
    shares = set()
    for seed in range(20):
        mixed = mix(mixings["remix"](), PairedBatch(images, labels, images, partner_labels), seed)
        shares.add(mixed.share < 0.5)
        assert mixed.labels.tolist() == ([1, 0] if mixed.share < 0.5 else [0, 0])
        assert mixed.partner_labels.tolist() == [1, 2]
    assert shares == {True, False}
