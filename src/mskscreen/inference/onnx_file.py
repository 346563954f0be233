"""Reads what must be known of an ONNX file before any engine may open it: its metadata, and that it is whole.

ONNX Runtime and OpenVINO follow "external data" to any path that a file names. A model here is one file,
so the protobuf wire format is walked first, without the onnx package: tensors are stepped over, not read.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mskscreen.errors import ModelError
from mskscreen.storage import replacing

MAX_FIELDS = 2_000_000
MAX_DEPTH = 24
MAX_TEXT = 4 << 20
_AGAIN = "fetch or export it again"

# Message -> field number -> message of that field: every way that leads to a TensorProto, and the metadata
# (onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
_CHILDREN = {
    "Model": {7: "Graph", 14: "Metadata", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
}
_DATA_LOCATION = 14
_METADATA = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _MalformedError(Exception):
    """The bytes do not follow the wire format, or go past a bound."""


@dataclass
class _Findings:
    metadata: dict[str, str]
    fields: int = 0
    nodes: int = 0
    external: bool = False


def read_metadata(path: Path) -> dict[str, str]:
    """The `metadata_props` of a self-contained ONNX file.

    Raises ModelError where the file is missing, is not ONNX, or keeps tensors outside itself.
    """
    found = _Findings({})
    with _mapped(path) as data:
        _walk(data, 0, len(data), "Model", 0, found)
    if found.external:
        raise ModelError(
            f"{path}: keeps tensors in external files, which are refused; save the model as one ONNX file"
        )
    if not found.nodes:
        raise ModelError(f"{path}: not an ONNX file (it holds no graph); {_AGAIN}")
    return found.metadata


def content_digest(path: Path) -> str:
    """SHA-256 of all that an ONNX file holds but its metadata: graph, weights, operator sets.

    It stays when a contract is replaced. Raises ModelError where the file is not ONNX.
    """
    hasher = hashlib.sha256()
    with _mapped(path) as data:
        for start, end, key in _top_fields(data):
            if key is None:
                with memoryview(data)[start:end] as field:
                    hasher.update(field)
    return hasher.hexdigest()


def write_metadata(path: Path, key: str, value: str, out: Path) -> None:
    """Write a copy of an ONNX file to `out` with one metadata entry set, all other bytes as they are.

    `out` may be `path`; it is written whole or not at all. Raises ModelError where `path` is not ONNX.
    """
    entry = b"".join(
        _tagged(number, text.encode("utf-8", "surrogatepass")) for number, text in ((1, key), (2, value))
    )
    with _mapped(path) as data, replacing(out) as partial, partial.open("wb") as stream:
        for start, end, known in _top_fields(data):
            if known != key:
                with memoryview(data)[start:end] as field:
                    stream.write(field)
        stream.write(_tagged(_METADATA, entry))


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file; what is wrong with them becomes a ModelError."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb"))
            data = stack.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
        except ValueError as error:  # an empty file cannot be mapped
            raise ModelError(f"{path}: not an ONNX file (it is empty); {_AGAIN}") from error
        try:
            yield data
        except (_MalformedError, ValueError) as error:
            raise ModelError(f"{path}: not an ONNX file ({error}); {_AGAIN}") from error


def _top_fields(data: mmap.mmap) -> Iterator[tuple[int, int, str | None]]:
    """Start and end of each field of the model, and the key of those that are metadata."""
    position = 0
    while position < len(data):
        begin = position
        tag, position = _tag(data, position, len(data))
        if tag & 7 == _VARINT:
            _, position = _varint(data, position, len(data))
            yield begin, position, None
            continue
        start, position = _extent(data, position, len(data), tag & 7)
        if tag != (_METADATA << 3 | _BYTES):
            yield begin, position, None
            continue
        found = _Findings({})
        _read_entry(data, start, position, found)
        yield begin, position, next(iter(found.metadata))


def _tagged(number: int, content: bytes) -> bytes:
    """A protobuf field that holds bytes."""
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _walk(data: mmap.mmap, position: int, end: int, message: str, depth: int, found: _Findings) -> None:
    if depth > MAX_DEPTH:
        raise _MalformedError("its graphs are nested too deeply")
    children = _CHILDREN.get(message, {})
    while position < end:
        found.fields += 1
        if found.fields > MAX_FIELDS:
            raise _MalformedError(f"it has more than {MAX_FIELDS} fields")
        tag, position = _tag(data, position, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position, end)
            found.external |= message == "Tensor" and number == _DATA_LOCATION and value != 0
            continue
        start, position = _extent(data, position, end, kind)
        child = children.get(number) if kind == _BYTES else None
        if child == "Metadata":
            _read_entry(data, start, position, found)
        elif child == "ExternalData":
            found.external = True
        elif child:
            found.nodes += child == "Node"
            _walk(data, start, position, child, depth + 1, found)


def _extent(data: mmap.mmap, position: int, end: int, kind: int) -> tuple[int, int]:
    """Where the value of a field that is not a varint starts and stops."""
    if kind == _BYTES:
        length, position = _varint(data, position, end)
    elif kind in (_FIXED64, _FIXED32):
        length = 8 if kind == _FIXED64 else 4
    else:
        raise _MalformedError("a field has an unknown wire type")
    if length > end - position:
        raise _MalformedError("it is cut short")
    return position, position + length


def _tag(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """The number and wire type of a field.

    More than 32 bits or 5 bytes are refused: C++ protobuf cuts them, and may see a field that is hidden here.
    """
    tag, after = _varint(data, position, end)
    if not 8 <= tag < 1 << 32 or after - position > 5:
        raise _MalformedError("a field has an impossible number")
    return tag, after


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _MalformedError("it is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _MalformedError("a number has no end")


def _read_entry(data: mmap.mmap, position: int, end: int, found: _Findings) -> None:
    """One StringStringEntryProto: key = 1, value = 2."""
    entry = {1: "", 2: ""}
    while position < end:
        tag, position = _tag(data, position, end)
        if tag & 7 == _VARINT:
            _, position = _varint(data, position, end)
            continue
        start, position = _extent(data, position, end, tag & 7)
        if tag in (1 << 3 | _BYTES, 2 << 3 | _BYTES):
            if position - start > MAX_TEXT:
                raise _MalformedError("its metadata is too long")
            entry[tag >> 3] = data[start:position].decode("utf-8")
    found.metadata[entry[1]] = entry[2]
