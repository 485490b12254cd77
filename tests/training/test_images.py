import numpy as np
import pytest
import torch

from raysk.training.images import DrawnViews, Draws
from raysk.training.world import World


@pytest.mark.parametrize("loader", [0, 1])
def test_drawing_views_does_not_change_the_global_generator(run, loader):
    world = World(0, 1, torch.device("cpu"), loader)
    draw = DrawnViews(run.store(16), ("light",), 0, world)
    before = torch.get_rng_state()
    for epoch in range(2):
        draws = [Draws(rows, np.zeros(4, np.int64)) for rows in (np.arange(4), np.arange(4, 8))]
        assert len(list(draw(epoch, draws))) == 2
        assert torch.equal(torch.get_rng_state(), before)
