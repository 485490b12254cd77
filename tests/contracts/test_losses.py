"""The contract of every loss; a new loss is tested here as soon as it is registered."""

import inspect
import pkgutil

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import raysk.parts.losses
from raysk.parts.heads import unit_length
from raysk.parts.losses import EmbeddingLoss, Loss, losses
from raysk.parts.losses.base import ScheduledLoss
from raysk.parts.losses.weighted import DeferredWeights

NUM_CLASSES = 5
WIDTH = 8
# A singleton class, and an imbalance beyond that of any data set.
COUNTS = torch.tensor([100_000, 40, 1, 7, 300])
MIXED = torch.tensor([0, 0, 1, 1, 0, 2, 4, 0])  # class 2 is alone in the batch, class 3 is absent
ALL_DIFFERENT = torch.tensor([0, 1, 2, 3, 4])
ALL_SAME = torch.tensor([2, 2, 2, 2])
SINGLE = torch.tensor([3])


def input_of(loss: Loss, labels: Tensor, dtype: torch.dtype, scale: float = 3.0, seed: int = 0) -> Tensor:
    """Returns a leaf input of the loss, with the fewest views that it can learn from."""
    random = torch.Generator().manual_seed(seed)
    if isinstance(loss, EmbeddingLoss):
        shape = (len(labels), loss.least_views, WIDTH)
        values = unit_length(torch.randn(shape, generator=random, dtype=torch.float64))
    else:
        values = scale * torch.randn((len(labels), NUM_CLASSES), generator=random, dtype=torch.float64)
    return values.to(dtype).requires_grad_()


def build(loss: Loss, counts: Tensor = COUNTS) -> nn.Module:
    return loss.build(counts, WIDTH) if isinstance(loss, EmbeddingLoss) else loss.build(counts)


def build_without_noise(loss: Loss, counts: Tensor = COUNTS) -> nn.Module:
    """Returns the loss in evaluation, where two calls have one result; in training, GCL draws noise in each call."""
    return build(loss, counts).eval()


def test_every_loss_is_registered():
    """A file that `losses/__init__.py` does not import, or a class without its decorator, would not be tested."""
    modules = [module.name for module in pkgutil.iter_modules(raysk.parts.losses.__path__)]
    assert [name for name in modules if not hasattr(raysk.parts.losses, name)] == []
    registered = {losses[name] for name in losses}
    pending, concrete = [*Loss.__subclasses__()], set()
    while pending:
        member = pending.pop()
        pending.extend(member.__subclasses__())
        if not inspect.isabstract(member) and member.__module__.startswith("raysk."):
            concrete.add(member)
    assert registered == concrete


@pytest.mark.parametrize("labels", [MIXED, ALL_DIFFERENT, ALL_SAME, SINGLE], ids=["mixed", "different", "same", "one"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_loss_and_gradient_are_finite(loss, labels, dtype):
    values = input_of(loss, labels, dtype)
    result = build(loss)(values, labels)
    assert result.shape == ()
    assert result.dtype == torch.float32
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_equal_and_huge_inputs_are_finite(loss, scale):
    values = input_of(loss, MIXED, torch.float16, scale)
    if isinstance(loss, EmbeddingLoss):  # unit length: all equal, or each opposite to the next
        signs = torch.ones(len(MIXED)) if scale == 0 else torch.tensor([1.0, -1.0]).repeat(len(MIXED) // 2)
        values = (values.detach()[:1] * signs.half()[:, None, None]).requires_grad_()
    result = build(loss)(values, MIXED)
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(values.grad).all()


def test_gradient_flows(loss):
    values = input_of(loss, MIXED, torch.float64)
    build(loss)(values, MIXED).backward()
    assert torch.isfinite(values.grad).all()
    assert values.grad.abs().max() > 0


def test_gradient_is_the_slope(loss):
    values = input_of(loss, MIXED, torch.float64, scale=1.0)
    module = build_without_noise(loss)
    # Class weights reach 100,000 here: in units of the loss, the rounding of its values stays below the tolerance.
    unit = module(values, MIXED).detach().clamp_min(1)
    # Small temperatures bend the loss within a step of the usual size.
    torch.autograd.gradcheck(lambda x: module(x, MIXED) / unit, values, eps=1e-8, atol=1e-4, rtol=1e-4)


def test_order_of_the_batch_does_not_matter(loss):
    values = input_of(loss, MIXED, torch.float64)
    order = torch.tensor([3, 7, 0, 5, 1, 6, 2, 4])
    module = build_without_noise(loss)
    torch.testing.assert_close(module(values[order], MIXED[order]), module(values, MIXED))


def test_building_twice_gives_the_same_loss(loss):
    values = input_of(loss, MIXED, torch.float64)
    assert build(loss)(values, MIXED) == build(loss, COUNTS.double())(values, MIXED)


def test_autocast_does_not_change_the_loss(loss):
    """Automatic mixed precision would otherwise compute matrix products in half precision."""
    values = input_of(loss, MIXED, torch.float32)
    module = build_without_noise(loss)
    with torch.autocast("cpu", torch.bfloat16):
        inside = module(values, MIXED)
    assert inside == module(values, MIXED)


def test_half_precision_loses_no_more_than_its_input_did(loss):
    values = input_of(loss, MIXED, torch.float16)
    module = build_without_noise(loss)
    torch.testing.assert_close(module(values, MIXED).double(), module(values.double(), MIXED), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in losses if issubclass(losses[name], EmbeddingLoss)])
def test_a_loss_on_embeddings_reads_labels_unless_it_says_otherwise(name):
    """Unlabelled rows have the label -1, and labels of the others must not matter beside them."""
    loss = losses[name]()
    values = input_of(loss, MIXED, torch.float64)
    module = build_without_noise(loss)
    with_labels = module(values, MIXED)
    if loss.needs_labels:
        assert module(values, ALL_DIFFERENT.repeat(2)[: len(MIXED)]) != with_labels
    else:
        assert module(values, torch.full_like(MIXED, -1)) == with_labels


def test_inputs_stay_unchanged(loss):
    values, labels = input_of(loss, MIXED, torch.float32), MIXED.clone()
    before = values.detach().clone()
    build(loss)(values, labels).backward()
    assert torch.equal(values.detach(), before)
    assert torch.equal(labels, MIXED)


def test_two_classes_are_enough(loss):
    labels = torch.tensor([0, 0, 0, 1])
    values = input_of(loss, labels, torch.float32)
    values = values if isinstance(loss, EmbeddingLoss) else values[:, :2]
    assert torch.isfinite(build(loss, torch.tensor([982, 18]))(values, labels))


@pytest.mark.parametrize("parts", [nn.Module, DeferredWeights])
def test_stacked_losses_equal_the_losses_and_gradients_of_each_alone(logit_losses, parts):
    """Two modules with the same parts must differ in buffers only, which one forward reads for all heads."""
    modules = [build_without_noise(loss) for loss in logit_losses]
    deferred = [module for module in modules if isinstance(module, DeferredWeights)]
    modules = deferred if parts is DeferredWeights else [module for module in modules if module not in deferred]
    if not modules:
        pytest.skip("no variant has these parts")
    for module in modules:
        if isinstance(module, ScheduledLoss):
            module.begin_epoch(0.9)
    names = [name for name, _ in modules[0].named_buffers()]
    buffers = {name: torch.stack([module.get_buffer(name) for module in modules]) for name in names}
    logits = [input_of(logit_losses[0], MIXED, torch.float64, seed=seed) for seed in range(len(modules))]
    heads = torch.stack([leaf.detach() for leaf in logits]).requires_grad_()  # (M, B, C)

    def loss_of(values: dict[str, Tensor], head_logits: Tensor) -> Tensor:
        return functional_call(modules[0], values, (head_logits, MIXED))

    together = torch.vmap(loss_of)(buffers, heads)  # (M,)
    alone = torch.stack([module(leaf, MIXED) for module, leaf in zip(modules, logits, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)
    together.sum().backward()
    alone.sum().backward()
    torch.testing.assert_close(heads.grad, torch.stack([leaf.grad for leaf in logits]), rtol=1e-6, atol=1e-6)


def test_a_checkpoint_holds_nothing_that_follows_from_settings_and_counts(logit_losses):
    assert all(not build(loss).state_dict() for loss in logit_losses)
