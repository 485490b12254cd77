"""One step of GraVIS's stage one against the method in plain loops."""

import numpy as np
import torch

from raysk.data.views import TrainingView, view_seed
from raysk.training.batches import Plan
from raysk.training.networks import StageOneNetwork
from raysk.training.stage_one import fresh_encoder, load_encoder, train_stage_one

GRAVIS = {
    "stage_one.loss": {"name": "gravis", "temperature": 0.2},
    "stage_one.views": ["gravis"],
    "stage_one.copies": 2,
    "stage_one.epochs": 1,
    "stage_one.batch_size": 24,  # more than half of the rows: the epoch is one step
    "stage_one.optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9, "weight_decay": 0.0},
}


def soft_step(difference: torch.Tensor, temperature: float) -> torch.Tensor:
    return 1 / (1 + torch.exp(torch.clamp(-difference / temperature, min=-50, max=50)))


def rank(scores: list[torch.Tensor], item: int, among: range, temperature: float) -> torch.Tensor:
    others = [soft_step(scores[j] - scores[item], temperature) for j in among if j != item]
    return 1 + torch.stack(others).sum()


def gravis_in_loops(embeddings: torch.Tensor, temperature: float) -> torch.Tensor:
    """One minus the mean precision of the views of the query's image, over all queries; embeddings (B, V, D)."""
    num_images, num_views, _ = embeddings.shape
    views = embeddings.reshape(num_images * num_views, -1)
    precision = torch.zeros((), dtype=views.dtype)
    for query in range(len(views)):
        scores = [(views[query] * view).sum() for view in views]
        first = query // num_views * num_views
        relevant = range(first, first + num_views)
        for item in relevant:
            own, whole = (rank(scores, item, among, temperature) for among in (relevant, range(len(views))))
            precision = precision + own / whole / num_views
    return 1 - precision / len(views)


def one_step_by_hand(job, run, world) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Returns the loss of the only batch and the encoder after one step of gradient descent, in double precision."""
    stage, rows = job.recipe.stage_one, run.folds.train_rows(0)
    network = StageOneNetwork(fresh_encoder(job, world), stage.projection, normalise=stage.normalise).double()
    (draws,) = Plan(run.manifest.labels[rows], stage, job.recipe.seed, world).shares(0)
    pixels, draw = run.store(job.recipe.image_size).pixels, TrainingView("gravis", job.recipe.image_size)
    views = [
        [draw(pixels[row], view_seed(job.recipe.seed, 0, row, number)) for number in range(2)]
        for row in rows[draws.rows].tolist()
    ]
    loss = gravis_in_loops(network.train()(torch.from_numpy(np.array(views))), 0.2)
    loss.backward()
    encoder = network.encoder
    stepped = {name: (weight - 0.5 * weight.grad).detach() for name, weight in encoder.named_parameters()}
    return loss.detach(), encoder.state_dict() | stepped


def check_step(changes, run, make_job, alone, diary) -> None:
    job = make_job(GRAVIS | changes)
    loss, after = one_step_by_hand(job, run, alone)
    record = train_stage_one(job, run, alone, diary())
    assert abs(record.losses[0] - loss.item()) < 1e-5
    before = fresh_encoder(job, alone).double().state_dict()
    for name, weight in load_encoder(job, run).state_dict().items():
        step, expected = weight.double() - before[name], after[name] - before[name]
        assert expected.abs().max() > 0, name
        assert (step - expected).norm() < 1e-3 * expected.norm() + 1e-6, name


def test_a_step_is_that_of_the_method_in_loops(run, make_job, alone, diary):
    check_step({}, run, make_job, alone, diary)


def test_a_step_in_pieces_without_normalising_is_that_of_the_method_in_loops(run, make_job, alone, diary):
    check_step({"stage_one.accumulate": 3, "stage_one.normalise": False}, run, make_job, alone, diary)
