"""Time of a training step with CARE's attention loss, against the same step with cross entropy alone.

    python benchmarks/attention.py [--repeats 30] [--share 0.2]

Both steps pass the same batch of 64 drawn images forward and backward through the same network, and AdamW moves the
weights. With CARE, `--share` of the images are of a rare class, with a box each: the step then also takes the gradient
of their logits at the last maps, and the loss of their attention. Images and boxes are given; loading and turning them
is not timed. The contenders take turns, and the median over the repeats counts. The goal is a ratio of 1.15.
"""

import argparse
from statistics import median
from time import perf_counter

import torch
from torch import nn

from raysk.parts.attention import Care
from raysk.parts.heads import LinearHead
from raysk.recipe import Model
from raysk.training.attending import AttendingClassifier, CareLoss
from raysk.training.guided import Guided
from raysk.training.networks import Classifier, new_encoder

CASES = [("test_resnet", 48, 8), ("test_resnet", 96, 32), ("resnet18", 64, 32), ("resnet18", 128, 32)]
BATCH, CLASSES = 64, 7


def classifier(backbone: str, size: int, stride: int) -> Classifier:
    torch.manual_seed(0)
    return Classifier(new_encoder(Model(backbone=backbone, output_stride=stride), size), LinearHead(), CLASSES).train()


def batch(size: int, share: float) -> tuple[Guided, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 1, size, size, 3), dtype=torch.uint8, generator=random)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=random)
    regions = torch.zeros((BATCH, size, size), dtype=torch.uint8)
    regions[:, size // 4 : 3 * size // 4, size // 3 : 5 * size // 6] = 255
    is_rare = torch.arange(BATCH) < round(share * BATCH)
    return Guided(images, regions, torch.where(is_rare, labels, -1)), labels


def seconds(network: nn.Module, loss: nn.Module, inputs: object, labels: torch.Tensor, optimizer: object) -> float:
    began = perf_counter()
    loss(network(inputs), labels).backward()
    optimizer.step()  # type: ignore[attr-defined]
    optimizer.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
    return perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.2, help="share of the images that are guided")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | pixels | positions | ms, cross entropy | ms, CARE | ratio |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for backbone, size, stride in CASES:
        guided, labels = batch(size, arguments.share)
        plain, attending = (
            classifier(backbone, size, stride),
            AttendingClassifier(classifier(backbone, size, stride), Care()),
        )
        contenders = (
            (plain, nn.CrossEntropyLoss(), guided.images),
            (attending, CareLoss(nn.CrossEntropyLoss(), 0.01), guided),
        )
        optimizers = [torch.optim.AdamW(network.parameters()) for network, _, _ in contenders]
        times: list[list[float]] = [[], []]
        for _ in range(arguments.repeats + 3):
            for place, (network, loss, inputs) in enumerate(contenders):
                times[place].append(seconds(network, loss, inputs, labels, optimizers[place]))
        usual, with_care = (1000 * median(of[3:]) for of in times)
        print(
            f"| {backbone} | {size} | {size // stride} x {size // stride} | {usual:.1f} | {with_care:.1f} | "
            f"{with_care / usual:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
