"""A bundle as one graph for other programs: ONNX, and torch.export.

A graph takes the pixels of images, one input for each size, and returns their probabilities and the disagreement of the
members. Normalisation, views, heads, shifts and the weighted mean are inside.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import raysk
from raysk.artifacts import replacing
from raysk.data.store.decoding import Pixels
from raysk.errors import ArtifactError, ConfigError, in_one_line
from raysk.inference.bundle import Bundle
from raysk.inference.images import stacked
from raysk.inference.network import BundleNetwork
from raysk.inference.predictor import Predictor
from raysk.inference.turning import TURNS

# The largest difference from the probabilities of the bundle that is accepted.
TOLERANCE = 1e-4
# The largest number of bytes in one message of protobuf, with room for the graph beside its weights.
_MOST_BYTES = 2**31 - 2**24
_BATCH = 8
_CPU = torch.device("cpu")

# Returns the probabilities (B, C) of images, (B, size, size, 3) uint8 for each size.
Run = Callable[[list[np.ndarray]], np.ndarray]


class _OnePass(BundleNetwork):
    """A network that encodes all views of its images in one pass, so that a graph has each weight and layer once."""

    def _features(self, place: int, images: Tensor, views: Sequence[str]) -> Iterable[Tensor]:
        turned = torch.cat([TURNS[view](images) for view in views])
        features: Tensor = self.encoders[place](turned)
        return features.unflatten(0, (len(views), -1)).unbind(0)


class _Graph(nn.Module):
    """The network as a graph: one positional input for each size, in single precision."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.network = _OnePass(bundle).float()
        self.sizes = bundle.facts.image_sizes

    def forward(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities (B, C) and disagreement (B,) of images, each (B, size, size, 3) uint8."""
        probabilities, votes = self.network(dict(zip(self.sizes, images, strict=True)))
        agreeing = votes.gather(1, probabilities.argmax(dim=1, keepdim=True)).squeeze(1)
        return probabilities, (1 - agreeing).clamp(0, 1)


def input_names(bundle: Bundle) -> list[str]:
    """Returns the names of the inputs of an exported graph, in their order."""
    return [f"images_{size}" for size in bundle.facts.image_sizes]


def export_onnx(bundle: Bundle, path: Path, images: Iterable[list[Pixels]] | None = None) -> float:
    """Writes an ONNX file with its weights inside; needs the extra `onnx`.

    Args:
        bundle: The classifier.
        path: The file.
        images: Images to check it with, each at every size, as from `pixels_of`; drawn noise if None.

    Returns:
        The largest difference between its probabilities under ONNX Runtime and those of the bundle.

    Raises:
        ConfigError: The extra is not installed.
        ArtifactError: It is too large, cannot be a graph, or differs by more than `TOLERANCE`; nothing is left behind.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--onnx needs {', '.join(missing)}, which is not installed: pip install 'raysk[onnx]'")
    size = sum(tensor.nbytes for tensor in bundle.tensors.values())
    if size > _MOST_BYTES:
        raise ArtifactError(
            f"an ONNX file must be smaller than 2 GB, but the weights have {size / 1e9:.1f} GB: export a row of fewer "
            "models, or use --torch"
        )
    import onnxruntime

    with replacing(path) as temporary:
        with _as_graph():
            exported = torch.onnx.export(
                _traced(bundle),
                input_names=input_names(bundle),
                output_names=["probabilities", "disagreement"],
                dynamo=True,
                verbose=False,
            )
            assert exported is not None
            for node in exported.model.graph.all_nodes():
                node.metadata_props.clear()  # names of modules and lines, a fifth of a small file
            exported.model.metadata_props.update(_metadata(bundle))
            exported.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])

        def run(batch: list[np.ndarray]) -> np.ndarray:
            outputs = session.run(["probabilities"], dict(zip(input_names(bundle), batch, strict=True)))
            return np.asarray(outputs[0])

        return _checked(run, bundle, images, path)


def export_torch(bundle: Bundle, path: Path, images: Iterable[list[Pixels]] | None = None) -> float:
    """Writes a file that `torch.export.load` reads, which must end with .pt2; otherwise as `export_onnx`."""
    with replacing(path) as temporary:
        with _as_graph():
            torch.export.save(_traced(bundle), temporary, extra_files=_metadata(bundle))
            graph = torch.export.load(temporary).module()

        def run(batch: list[np.ndarray]) -> np.ndarray:
            with torch.no_grad():
                probabilities: Tensor = graph(*map(torch.from_numpy, batch))[0]
            return probabilities.numpy()

        return _checked(run, bundle, images, path)


@contextmanager
def _as_graph() -> Iterator[None]:
    """Turns an error of torch's exporters, such as an operation that has no graph, into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters about themselves
            yield
    except RuntimeError as error:
        raise ArtifactError(
            f"the networks of a bundle must be graphs for any number of images, but {in_one_line(error)[:300]}: "
            "choose a row with another backbone"
        ) from error


def _traced(bundle: Bundle) -> torch.export.ExportedProgram:
    """Returns the graph of a bundle, for any number of images."""
    graph = _Graph(bundle).eval()
    batch = torch.export.Dim("batch")
    # Two images, since a batch of one would be kept as a constant.
    examples = tuple(torch.zeros(2, size, size, 3, dtype=torch.uint8) for size in graph.sizes)
    with torch.no_grad():
        program = torch.export.export(graph, examples, dynamic_shapes={"images": tuple({0: batch} for _ in examples)})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # file names and lines of this machine
    return program


def _metadata(bundle: Bundle) -> dict[str, str]:
    return {
        "raysk.version": raysk.__version__,
        "raysk.bundle": bundle.digest,
        "raysk.class_names": json.dumps(bundle.facts.class_names),
        "raysk.image_sizes": json.dumps(bundle.facts.image_sizes),
        "raysk.card": bundle.card,
    }


def _checked(run: Run, bundle: Bundle, images: Iterable[list[Pixels]] | None, path: Path) -> float:
    """Returns the largest difference of a graph's probabilities from those of the bundle."""
    predictor = Predictor(bundle, _CPU)
    largest = 0.0
    for batch in _batches(iter(_noise(predictor.sizes) if images is None else images)):
        inputs = [tensor.numpy() for tensor in stacked(batch, predictor.sizes, _CPU).values()]
        difference = np.abs(run(inputs) - predictor.predict_pixels(batch).probabilities).max()
        # A comparison with NaN is false.
        largest = max(largest, np.inf if np.isnan(difference) else float(difference))
    if largest > TOLERANCE:
        raise ArtifactError(
            f"{path} must give the probabilities of its bundle to {TOLERANCE:g}, but differs by {largest:.2g}: choose "
            "a row with another backbone"
        )
    return largest


def _batches(images: Iterator[list[Pixels]]) -> Iterator[list[list[Pixels]]]:
    """Yields the first image alone and the others in batches, since a graph must take any number."""
    number = 1
    while batch := list(islice(images, number)):
        yield batch
        number = _BATCH


def _noise(sizes: Sequence[int]) -> list[list[Pixels]]:
    draw = np.random.default_rng(0)
    return [[draw.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in sizes] for _ in range(1 + _BATCH)]
