"""What is known of an ONNX file before an engine may open it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mskscreen.contract import METADATA_KEY, ModelContract
from mskscreen.errors import ModelError
from mskscreen.inference import open_engine
from mskscreen.inference.onnx_file import content_digest, read_metadata, write_metadata


def external(tensor: TensorProto, location: str = "/etc/passwd") -> TensorProto:
    """Make a tensor say that its numbers are in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def small(name: str = "t") -> TensorProto:
    return numpy_helper.from_array(np.zeros(4, np.float32), name)


def in_initializer(model: Any) -> None:
    external(model.graph.initializer[0])


def in_attribute(model: Any) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=external(small())))


def in_subgraph(model: Any) -> None:
    inner = helper.make_graph([], "inner", [], [], [external(small())])
    outer = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], else_branch=outer))


def in_sparse(model: Any) -> None:
    indices = numpy_helper.from_array(np.arange(4), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(external(small()), indices, [9]))


def in_function(model: Any) -> None:
    node = helper.make_node("Constant", [], ["c"], value=external(small()))
    model.functions.append(helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 17)]))


def in_training(model: Any) -> None:
    graph = helper.make_graph([], "init", [], [], [external(small())])
    model.training_info.append(onnx.TrainingInfoProto(initialization=graph))


def without_location_flag(model: Any) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")


def with_flag_only(model: Any) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


EVASIONS = [
    in_initializer,
    in_attribute,
    in_subgraph,
    in_sparse,
    in_function,
    in_training,
    without_location_flag,
    with_flag_only,
]


@pytest.mark.parametrize("edit", EVASIONS, ids=lambda edit: edit.__name__)
def test_external_data_is_refused_wherever_it_hides(tmp_path: Path, tiny_model: Callable, edit: Callable) -> None:
    path = tiny_model(tmp_path / "m.onnx", edit=edit)
    with pytest.raises(ModelError, match="external files"):
        open_engine(path)


def test_metadata_is_what_the_onnx_package_reads(tmp_path: Path, tiny_model: Callable) -> None:
    path = tiny_model(tmp_path / "m.onnx", edit=lambda m: m.metadata_props.add(key="ключ", value="🦴" * 1000))
    assert read_metadata(path) == {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert ModelContract.from_json(read_metadata(path)[METADATA_KEY]).name == "tiny"


def test_metadata_is_set_in_place_and_nothing_else_changes(tmp_path: Path, tiny_model: Callable) -> None:
    path = tiny_model(tmp_path / "m.onnx", edit=lambda m: m.metadata_props.add(key="author", value="somebody"))
    before, digest = onnx.load(path), content_digest(path)
    for value in ("a", "ключ 🦴 " * 50_000, ""):
        write_metadata(path, METADATA_KEY, value, path)
        assert read_metadata(path) == {"author": "somebody", METADATA_KEY: value}
        assert content_digest(path) == digest
    after = onnx.load(path)
    del before.metadata_props[:], after.metadata_props[:]
    assert before == after
    other = tiny_model(tmp_path / "other.onnx", edit=lambda m: m.graph.node[1].ClearField("name"))
    assert content_digest(other) == digest
    other = tiny_model(tmp_path / "other.onnx", edit=lambda m: setattr(m.graph.node[1], "name", "x"))
    assert content_digest(other) != digest


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 400, b"hello " * 50, b"\x89PNG\r\n\x1a\n", b"\x0a\xff\xff\xff\xff\x0f"]
)
def test_what_is_not_onnx_is_one_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx: not an ONNX file"):
        read_metadata(path)


def test_a_missing_file_and_a_folder_are_one_error_with_their_name(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.onnx", tmp_path):
        with pytest.raises(ModelError, match=path.name):
            read_metadata(path)


def test_nesting_is_bounded(tmp_path: Path, tiny_model: Callable) -> None:
    def nest(model: Any) -> None:
        graph = helper.make_graph([], "inmost", [], [])
        for _ in range(30):
            graph = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=graph)], "g", [], [])
        model.graph.node.append(graph.node[0])

    with pytest.raises(ModelError, match="nested"):
        read_metadata(tiny_model(tmp_path / "m.onnx", edit=nest))


def varint(value: int, least: int = 1) -> bytes:
    """A number in at least so many bytes."""
    count = max(least, -(-value.bit_length() // 7))
    return bytes(value >> 7 * i & 0x7F | (i < count - 1) << 7 for i in range(count))


def field(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


PLACES = {"model": (), "metadata": (14,), "graph": (7,), "tensor": (7, 5), "tensor of a node": (7, 1, 5, 5)}
EXTERNAL = 13 << 3 | 2
IMPOSSIBLE = {
    "33 bits": varint(1 << 32 | EXTERNAL),
    "64 bits": varint(1 << 63 | EXTERNAL),
    "6 bytes": varint(EXTERNAL, 6),
    "field 0": varint(2),
}


@pytest.mark.parametrize("tag", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_tag_that_readers_cut_differently_is_refused_at_every_depth(
    tmp_path: Path, tiny_model: Callable, place: tuple[int, ...], tag: bytes
) -> None:
    """In a tensor, the first two are `external_data` to C++ protobuf, which both engines then follow."""
    path = tiny_model(tmp_path / "m.onnx")
    whole = path.read_bytes()

    def add(tag: bytes) -> None:
        content = field(tag, b"\x0a\x08location\x12\x0bweights.bin")
        for number in reversed(place):
            content = field(varint(number << 3 | 2), content)
        path.write_bytes(whole + content)  # a message that comes twice is merged

    add(varint(99 << 3 | 2, 5))
    assert METADATA_KEY in read_metadata(path)
    add(tag)
    readers = [read_metadata]
    if place in ((), (14,)):
        readers += [content_digest, lambda path: write_metadata(path, "k", "v", tmp_path / "out.onnx")]
    for read in readers:
        with pytest.raises(ModelError, match="impossible number"):
            read(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_gives_metadata_or_a_model_error(
    tmp_path: Path, tiny_model: Callable, data: st.DataObject
) -> None:
    path = tmp_path / "whole.onnx"
    whole = path.read_bytes() if path.exists() else tiny_model(path).read_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=6)) if damaged else []:
        damaged[place] = data.draw(st.integers(0, 255))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(damaged)
    try:
        metadata = read_metadata(broken)
    except ModelError as error:
        assert "broken.onnx" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert all(isinstance(value, str) for value in metadata.values())
