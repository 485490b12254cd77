import pytest
import torch

from raysk.stage import Optimizer
from raysk.training.optimization import averaged, create_optimizer, learning_rate
from raysk.training.stage_two_search.batched_optimizers import BatchedAverage, batched_optimizers, learning_rates

SETTINGS = {
    "sgd": [
        Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.01),
        Optimizer(name="sgd", lr=0.5, momentum=0.0, weight_decay=0.0, schedule="constant"),
    ],
    "adamw": [
        Optimizer(name="adamw", lr=0.01, weight_decay=0.5, schedule="step"),
        Optimizer(name="adamw", lr=0.1, weight_decay=0.0, warmup=0.5),
    ],
}
NUM_STEPS = 12


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_and_averages_are_those_of_torch(name):
    random = torch.Generator().manual_seed(0)
    settings, decays = SETTINGS[name], [0.0, 0.7]
    models = [torch.nn.Linear(3, 4) for _ in settings]
    references = [
        create_optimizer(setting, model.parameters()) for setting, model in zip(settings, models, strict=True)
    ]
    averages = [averaged(model, decay) for model, decay in zip(models, decays, strict=True)]
    stacks = [torch.stack([getattr(model, part).detach() for model in models]) for part in ("weight", "bias")]
    batched, average = batched_optimizers[name](settings, stacks, NUM_STEPS), BatchedAverage(decays, stacks)
    for step in range(NUM_STEPS):
        gradients = [torch.randn(stack.shape, generator=random) for stack in stacks]
        for place, (setting, model, reference) in enumerate(zip(settings, models, references, strict=True)):
            reference.param_groups[0]["lr"] = learning_rate(setting, step, NUM_STEPS)
            model.weight.grad, model.bias.grad = (gradient[place].clone() for gradient in gradients)
            reference.step()
        batched.step(gradients)
        average.update(stacks)
        averages[1].update_parameters(models[1])
    for place, model in enumerate((models[0], averages[1].module)):
        torch.testing.assert_close(average.values[0][place], model.weight.detach())
        torch.testing.assert_close(average.values[1][place], model.bias.detach())
    torch.testing.assert_close(stacks[0], torch.stack([model.weight.detach() for model in models]))


def test_learning_rates_are_those_of_each_setting():
    settings = [*SETTINGS["sgd"], *SETTINGS["adamw"]]
    expected = [[learning_rate(setting, step, NUM_STEPS) for setting in settings] for step in range(NUM_STEPS)]
    torch.testing.assert_close(learning_rates(settings, NUM_STEPS), torch.tensor(expected, dtype=torch.float64))
