"""Time of a training step in 32 and in 16 bits on this CPU, against the same network from timm in a plain loop.

    python benchmarks/precision.py [--repeats 20]

All contenders pass the same batch of 64 drawn images forward and backward through the same network, and AdamW moves the
weights: timm's network as a script has it (float32, colours first), raysk's encoder in float32, and the same with
`model.precision=bfloat16`. One thread, as a lane has on a laptop. The contenders take turns, and the median counts.
The gain needs a CPU that multiplies 16-bit matrices (AMX, or AVX-512 with BF16); others become slower.
"""

import argparse
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from raysk.parts.backbones import create_backbone
from raysk.parts.encoder import Encoder
from raysk.parts.precision import Precision

CASES = [("test_resnet", 48), ("test_resnet", 64), ("test_efficientnet", 48), ("resnet10t", 64), ("resnet18", 96)]
BATCH = 64


class Plain(nn.Module):
    """timm's network on images that are normalised beforehand, in the usual order of memory."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.backbone.network.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.permute(0, 3, 1, 2).float().div(255).contiguous())  # type: ignore[no-any-return]


def encoder(name: str, size: int, precision: Precision) -> Encoder:
    torch.manual_seed(0)
    return Encoder(create_backbone(name, False, None, size), precision).train()


def seconds(network: nn.Module, images: Tensor, optimizer: torch.optim.Optimizer) -> float:
    began = perf_counter()
    network(images).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | pixels | ms an image, timm | raysk, float32 | raysk, bfloat16 | timm / raysk, bfloat16 |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for name, size in CASES:
        images = torch.randint(0, 256, (BATCH, size, size, 3), dtype=torch.uint8)
        networks = [
            Plain(encoder(name, size, "float32")),
            encoder(name, size, "float32"),
            encoder(name, size, "bfloat16"),
        ]
        optimizers = [torch.optim.AdamW(network.parameters()) for network in networks]
        times: list[list[float]] = [[] for _ in networks]
        for _ in range(arguments.repeats + 3):
            for place, network in enumerate(networks):
                times[place].append(seconds(network, images, optimizers[place]))
        plain, single, half = (1000 * median(of[3:]) / BATCH for of in times)
        print(f"| {name} | {size} | {plain:.2f} | {single:.2f} | {half:.2f} | {plain / half:.2f} |", flush=True)


if __name__ == "__main__":
    main()
