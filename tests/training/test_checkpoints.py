import resource

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from raysk.errors import ArtifactError
from raysk.training.checkpoints import (
    Checkpoint,
    ClassifierCheckpoint,
    EncoderCheckpoint,
    FeatureCheckpoint,
    ProgressCheckpoint,
    load_optimizer,
    load_weights,
    optimizer_tensors,
    pack,
    unpack,
)
from tests.replacing import replaced_in_turns

KINDS = [EncoderCheckpoint, FeatureCheckpoint, ClassifierCheckpoint, ProgressCheckpoint]
TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7), "half": torch.ones(2).bfloat16()}
FACTS = {"seconds": 0.1, "losses": [1.5, 0.1 + 0.2], "epochs": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back(kind, tmp_path):
    path = tmp_path / "deep" / "fold1.safetensors"
    kind("key", 1, FACTS, TENSORS).write(path)
    back = kind.read(path, "key", 1)
    assert back.facts == FACTS
    assert back.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert all(back.tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items())
    assert list(path.parent.iterdir()) == [path]


def test_tensors_of_any_layout_keep_their_values(tmp_path):
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    EncoderCheckpoint("key", 0, {}, {"w": weight, "t": weight[0, 0].T}).write(tmp_path / "file")
    tensors = EncoderCheckpoint.read(tmp_path / "file", "key", 0).tensors
    assert torch.equal(tensors["w"], weight)
    assert torch.equal(tensors["t"], weight[0, 0].T)


@pytest.mark.parametrize("written", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_a_file_of_the_wrong_kind_is_refused(written: type[Checkpoint], wanted: type[Checkpoint], tmp_path):
    path = tmp_path / "file"
    written("key", 0, FACTS, TENSORS).write(path)
    if written is wanted:
        assert type(wanted.read(path, "key", 0)) is wanted
    else:
        with pytest.raises(ArtifactError, match=f"must hold the {wanted.kind} key of fold 0, but holds .*remove it"):
            wanted.read(path, "key", 0)


@pytest.mark.parametrize(("key", "fold"), [("other", 0), ("key", 1)])
def test_the_file_of_another_job_is_refused(key, fold, tmp_path):
    EncoderCheckpoint("key", 0, FACTS, TENSORS).write(tmp_path / "file")
    with pytest.raises(ArtifactError, match=f"must hold the encoder {key} of fold {fold}"):
        EncoderCheckpoint.read(tmp_path / "file", key, fold)


def test_foreign_safetensors_are_refused(tmp_path):
    save_file(TENSORS, tmp_path / "file")
    with pytest.raises(ArtifactError, match="must hold the encoder key of fold 0"):
        EncoderCheckpoint.read(tmp_path / "file", "key", 0)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(share, tmp_path):
    path = tmp_path / "file"
    EncoderCheckpoint("key", 0, FACTS, {"w": torch.zeros(1000)}).write(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ArtifactError, match="must be a whole safetensors file") as caught:
        EncoderCheckpoint.read(path, "key", 0)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="must be a whole safetensors file"):
        EncoderCheckpoint.read(tmp_path / "file", "key", 0)


def test_reading_during_a_replacement_returns_one_whole_file(tmp_path):
    # Headers of different lengths: the tensors of one file behind the header of the other would be shifted.
    path, files = tmp_path / "file", [tmp_path / "short", tmp_path / "long"]
    for file, number in zip([path, *files], (1, 1, 50), strict=True):
        ProgressCheckpoint("key", 0, {"losses": [0.1] * number}, {"w": torch.full((64,), number)}).write(file)
    with replaced_in_turns(path, files):
        for _ in range(500):
            checkpoint = ProgressCheckpoint.read(path, "key", 0)
            assert checkpoint.tensors["w"].unique().tolist() == [len(checkpoint.facts["losses"])]


def test_a_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    EncoderCheckpoint("key", 0, FACTS, TENSORS).write(path)
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ArtifactError, match=r"must be writable, but .*free space") as caught:
            EncoderCheckpoint("key", 0, FACTS, {"w": torch.zeros(100_000)}).write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_unpack_inverts_pack():
    both = pack("model", {"w": torch.ones(1)}) | pack("model2", {"w": torch.zeros(1)})
    assert both.keys() == {"model/w", "model2/w"}
    assert unpack("model", both) == {"w": torch.ones(1)}


@pytest.mark.parametrize(
    "create",
    [
        lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
        lambda weights: torch.optim.SGD(weights, lr=0.1),
        lambda weights: torch.optim.AdamW(weights, lr=0.1),
    ],
    ids=["momentum", "plain", "adamw"],
)
def test_a_restored_optimizer_continues_with_the_same_numbers(create, tmp_path):
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, times: int) -> None:
        for _ in range(times):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()

    model = nn.Linear(3, 2)
    optimizer = create(model.parameters())
    step(model, optimizer, 2)
    ProgressCheckpoint("key", 0, {}, pack("o", optimizer_tensors(optimizer)) | pack("m", model.state_dict())).write(
        tmp_path / "file"
    )
    step(model, optimizer, 3)

    tensors = ProgressCheckpoint.read(tmp_path / "file", "key", 0).tensors
    resumed = nn.Linear(3, 2)
    load_weights(resumed, unpack("m", tensors), tmp_path / "file")
    again = create(resumed.parameters())
    load_optimizer(again, unpack("o", tensors))
    step(resumed, again, 3)
    assert torch.equal(resumed.weight, model.weight)
    assert torch.equal(resumed.bias, model.bias)


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    with pytest.raises(ArtifactError, match=r"must fit the network of the recipe, but .*size mismatch") as caught:
        load_weights(nn.Linear(3, 2), nn.Linear(4, 2).state_dict(), tmp_path / "file")
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match="Missing key"):
        load_weights(nn.Linear(3, 2), {}, tmp_path / "file")
