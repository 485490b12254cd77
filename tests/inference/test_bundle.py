"""A file that is no bundle, or was changed, is refused in one line; nothing runs, and nothing large is made."""

import json
import os
import resource
import struct

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raysk.errors import ArtifactError
from raysk.inference import seal as seals
from raysk.inference.bundle import Bundle
from raysk.inference.predictor import load
from tests.inference.drawn_bundles import draw_bundle

FUZZ = settings(
    deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return draw_bundle([("test_resnet", 24)], [(0, "linear"), (0, "mlp")], ["identity", "hflip"])


@pytest.fixture(scope="module")
def content(bundle, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "whole.raysk"
    bundle.write(path)
    return path.read_bytes()


def refusal(path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        load(path, device="cpu")
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def split(content: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def sealed(header: str | dict, weights: bytes) -> bytes:
    """A file with this header and a digest that fits."""
    text = header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))
    blank = "0" * 64
    start = text.find('"digest":"') + len('"digest":"')
    text = text[:start] + blank + text[start + 64 :]
    encoded = text.encode()
    whole = struct.pack("<Q", len(encoded)) + encoded + weights
    place = whole.find(b'"digest":"') + len(b'"digest":"')
    return whole[:place] + seals._digest(whole).encode() + whole[place + 64 :]


def with_facts(content: bytes, change) -> bytes:
    """The file with other facts, and a digest that fits."""
    header, weights = split(content)
    facts = json.loads(header["__metadata__"]["raysk"])
    changed = change(facts)
    header["__metadata__"]["raysk"] = json.dumps(facts) if changed is None else changed
    return sealed(header, weights)


def test_a_bundle_is_read_as_it_was_written(bundle, content, tmp_path):
    (tmp_path / "b.raysk").write_bytes(content)
    read = Bundle.read(tmp_path / "b.raysk")
    assert read.facts == bundle.facts
    assert read.card == bundle.card
    assert read.digest == split(content)[0]["__metadata__"]["digest"]
    assert read.tensors.keys() == bundle.tensors.keys()
    assert all(torch.equal(tensor, bundle.tensors[name]) for name, tensor in read.tensors.items())
    (tmp_path / "sealed.raysk").write_bytes(with_facts(content, lambda facts: None))
    load(tmp_path / "sealed.raysk", device="cpu")  # so that the tests below change what they say, and nothing else


@FUZZ
@given(data=st.data())
def test_one_changed_byte_anywhere_is_found(data, content, tmp_path):
    # Most places would be weights.
    start = int.from_bytes(content[:8], "little") + 8
    place = data.draw(st.one_of(st.integers(0, 40), st.integers(0, start), st.integers(0, len(content) - 1)))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    refusal(tmp_path / "b.raysk", content[:place] + bytes([value]) + content[place + 1 :])


@FUZZ
@given(data=st.data())
def test_a_file_that_was_cut_or_lengthened_is_refused(data, content, tmp_path):
    start = int.from_bytes(content[:8], "little") + 8
    length = data.draw(st.one_of(st.integers(0, 20), st.integers(0, start), st.integers(0, len(content) - 1)))
    refusal(tmp_path / "b.raysk", content[:length])
    refusal(tmp_path / "b.raysk", content + content[: max(1, length)])


@FUZZ
@given(st.binary(max_size=200))
@example(struct.pack("<Q", 2**63) + b"{}")
@example(struct.pack("<Q", 2) + b"{}")
@example(struct.pack("<Q", 100_000) + b"[" * 100_000)
@example(struct.pack("<Q", 4) + b"\xff\xfe{\0")
def test_bytes_are_no_bundle(tmp_path, content):
    refusal(tmp_path / "b.raysk", content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """The paths of all values in JSON."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from places(child, (*path, name))


@FUZZ
@given(data=st.data())
def test_facts_of_any_kind_are_read_or_refused(data, bundle, content, tmp_path):
    """Provenance may say anything of its type; all other changes are refused, or leave the network as it is."""

    def change(facts):
        *path, last = data.draw(st.sampled_from([path for path in places(facts) if path]))
        parent = facts
        for name in path:
            parent = parent[name]
        kind = data.draw(st.sampled_from(["value", "gone", "added"]))
        if kind == "value":
            parent[last] = data.draw(JSON)
        elif kind == "gone":
            del parent[last]
        elif isinstance(parent, dict):
            parent[data.draw(st.text(max_size=5))] = data.draw(JSON)
        else:
            parent.append(data.draw(JSON))

    path = tmp_path / "b.raysk"
    path.write_bytes(with_facts(content, change))
    try:
        predictor = load(path, device="cpu")
    except ArtifactError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000
    else:
        facts = predictor.bundle.facts
        assert [head.encoder for head in facts.heads] == [0, 0]
        assert len(set(facts.class_names)) == 3
        assert torch.isfinite(predictor.network({24: torch.zeros(1, 24, 24, 3, dtype=torch.uint8)}).probabilities).all()


def head(**changes):
    return lambda facts: facts["heads"][0].update(changes)


def encoder(**changes):
    return lambda facts: facts["encoders"][0].update(changes)


def provenance(**changes):
    return lambda facts: facts["provenance"].update(changes)


WRONG = {
    "an unknown head": head(settings={"name": "linaer"}),
    "a head without a name": head(settings={}),
    "a head with an unknown setting": head(settings={"name": "linear", "path": "../../etc"}),
    "a head of another shape": head(settings={"name": "ncm"}),
    "a wide head": head(settings={"name": "mlp", "hidden": 65536, "dropout": 0.0}),
    "a head on an encoder that is not there": head(encoder=1),
    "a huge place": head(encoder=10**30),
    "a negative place": head(encoder=-1),
    "weights that do not sum to 1": head(weights={"identity": 0.9}),
    "a negative weight": head(weights={"identity": -0.5, "hflip": 1.0}),
    "an unknown view": head(weights={"identity": 0.25, "../x": 0.25}),
    "a shift for too few classes": head(shift=[0.0, 0.0]),
    "a shift that is no number": head(shift=[float("nan"), 0.0, 0.0]),
    "a shift without an end": head(shift=[float("inf"), 0.0, 0.0]),
    "no heads": lambda facts: facts.update(heads=[]),
    "no encoders": lambda facts: facts.update(encoders=[]),
    "many encoders": lambda facts: facts.update(encoders=facts["encoders"] * 10_000),
    "an unknown backbone": encoder(backbone="resnet18x"),
    "a path as a backbone": encoder(backbone="hf-hub:someone/something"),
    "a local path as a backbone": encoder(backbone="local-dir:/tmp"),
    "a backbone of other weights": encoder(backbone="test_convnext"),
    "a backbone of many gigabytes": encoder(backbone="vit_giant_patch14_reg4_dinov2", image_size=4096),
    "a pooling that does not fit": encoder(backbone="test_vit", pooling="none", image_size=160),
    "a huge image": encoder(image_size=10**9),
    "a division by zero": encoder(std=[0.0, 1.0, 1.0]),
    "a mean that is no number": encoder(mean=[float("nan"), 0.0, 0.0]),
    "a class twice": lambda facts: facts.update(class_names=["mel", "nv", "mel"]),
    "one class": lambda facts: facts.update(class_names=["mel"]),
    "another schema": lambda facts: facts.update(schema_version=99),
    "a schema that is a long text": lambda facts: facts.update(schema_version="\n" * 10**6),
    "an unknown field": lambda facts: facts.update({"\n\x1b[31m" * 1000: 1}),
    "a provenance of another type": provenance(scores=[1]),
    "a name that is no text": provenance(name="\ud800"),
    "a class that is no text": lambda facts: facts.update(class_names=["mel", "nv", "\udfff"]),
    "a setting that is no text": head(settings={"name": "\ud800"}),
    "data that are no text": provenance(data={"a": ["\ud800"]}),
    "a score that is no number": provenance(scores={"test_macro_f1": float("nan")}),
    "a huge number": lambda facts: '{"schema_version": 1' + "0" * 10_000 + "}",
    "no facts": lambda facts: "null",
    "a list of facts": lambda facts: "[1]",
    "a deep list": lambda facts: "[" * 1_000_000,
    "deep objects": lambda facts: '{"schema_version":1,"heads":' + '{"a":' * 100_000,
    "deep and whole": lambda facts: '{"schema_version":1,"heads":' + "[" * 900 + "]" * 900 + "}",
    "a field twice": lambda facts: json.dumps(facts)[:-1] + ', "class_names": ["a", "b"]}',
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_facts_with_a_digest_that_fits_are_refused_in_one_line(content, tmp_path, name):
    message = refusal(tmp_path / "b.raysk", with_facts(content, WRONG[name]))
    assert not message.endswith(": ")


def renamed(header: dict, weights: bytes) -> bytes:
    header["../../x"] = header.pop("heads/0/bias")
    return sealed(header, weights)


def of_type(dtype: str, name: str = "heads/0/bias"):
    def change(header: dict, weights: bytes) -> bytes:
        header[name]["dtype"] = dtype
        return sealed(header, weights)

    return change


def of_shape(*shape: int):
    def change(header: dict, weights: bytes) -> bytes:
        header["heads/0/bias"]["shape"] = list(shape)
        return sealed(header, weights)

    return change


def at_offsets(*offsets: int):
    def change(header: dict, weights: bytes) -> bytes:
        header["heads/0/bias"]["data_offsets"] = list(offsets)
        return sealed(header, weights)

    return change


def not_finite(header: dict, weights: bytes) -> bytes:
    start, _ = header["heads/0/bias"]["data_offsets"]
    return sealed(header, weights[:start] + struct.pack("<f", float("nan")) + weights[start + 4 :])


def card_of_no_text(header: dict, weights: bytes) -> bytes:
    header["__metadata__"]["card"] = "\ud800"
    return sealed(header, weights)


def twice(header: dict, weights: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":"))
    return sealed(text[:-1] + ',"heads/0/bias":' + json.dumps(header["heads/0/bias"]) + "}", weights)


def surplus(header: dict, weights: bytes) -> bytes:
    header["other"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(weights), len(weights) + 4]}
    return sealed(header, weights + bytes(4))


WRONG_WEIGHTS = {
    "a name that is a path": renamed, "an unknown type": of_type("F4"), "no type": of_type("\n"),
    "a type of the same size": of_type("I32"), "another type": of_type("F16"), "complex numbers": of_type("C64"),
    "a huge shape": of_shape(2**62, 3), "an overflowing shape": of_shape(2**63, 2), "a negative shape": of_shape(-3),
    "a shape of nothing": of_shape(0, 2**62), "another shape": of_shape(1, 3),
    "offsets beyond the file": at_offsets(0, 2**62),
    "offsets backwards": at_offsets(12, 0), "negative offsets": at_offsets(-12, 0), "no number": not_finite,
    "a tensor twice": twice, "a card of no text": card_of_no_text, "a tensor too many": surplus,
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_wrong_weights_with_a_digest_that_fits_are_refused_in_one_line(content, tmp_path, name):
    refusal(tmp_path / "b.raysk", WRONG_WEIGHTS[name](*split(content)))


def test_a_refused_file_costs_little_memory(content, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("a wide head", "a backbone of many gigabytes", "many encoders"):
        refusal(tmp_path / "b.raysk", with_facts(content, WRONG[name]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "below a file", "a name with a null"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "b.raysk"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "below a file":
        path.write_text("x")
        path = path / "x"
    elif kind == "a name with a null":
        path = tmp_path / "b\0"
    with pytest.raises(ArtifactError, match=r"must be a bundle|check that this is a run directory"):
        load(path, device="cpu")
