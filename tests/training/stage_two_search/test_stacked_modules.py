import pytest
import torch

from raysk.parts.heads import CosineHead, LinearHead, MLPHead
from raysk.training.stage_two_search.stacked_modules import StackedModules, structure

HEADS = {"linear": LinearHead(), "cosine": CosineHead(), "mlp": MLPHead(hidden=5, dropout=0.0)}


@pytest.mark.parametrize("name", HEADS)
def test_stacked_heads_give_the_logits_and_gradients_of_each(name):
    heads = [HEADS[name].build(6, 3) for _ in range(4)]
    inputs, slopes = torch.randn(8, 6), torch.randn(4, 8, 3)
    stack = StackedModules(heads)
    logits = stack(inputs, dims=(None,))
    gradients = torch.autograd.grad(logits, list(stack.parameters.values()), slopes)
    for place, head in enumerate(heads):
        expected = head(inputs)
        torch.testing.assert_close(logits[place], expected)
        for stacked, gradient in zip(
            gradients, torch.autograd.grad(expected, head.parameters(), slopes[place]), strict=True
        ):
            torch.testing.assert_close(stacked[place], gradient)


def test_unstack_copies_the_parameters_back():
    heads = [LinearHead().build(6, 3) for _ in range(2)]
    stack = StackedModules(heads)
    stack.unstack([parameter + 1 for parameter in stack.parameters.values()])
    for place, head in enumerate(heads):
        torch.testing.assert_close(head.weight.detach(), stack.parameters["weight"][place].detach() + 1)


def test_a_structure_ignores_only_the_values():
    assert structure(LinearHead().build(6, 3)) == structure(LinearHead().build(6, 3))
    different = [
        LinearHead().build(6, 3),
        LinearHead().build(6, 4),
        CosineHead().build(6, 3),
        MLPHead(hidden=5, dropout=0.1).build(6, 3),
        MLPHead(hidden=5, dropout=0.2).build(6, 3),
    ]
    assert len({structure(module) for module in different}) == len(different)
