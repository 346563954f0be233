"""A model on a server that speaks the Open Inference Protocol v2 over HTTP: Triton, OpenVINO Model Server, KServe.

Source: https://github.com/kserve/open-inference-protocol (REST) and Triton's extensions for binary tensors and for
the model's configuration, whose parameters carry the contract where `mskscreen export --triton` wrote it.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mskscreen.contract import METADATA_KEY, ModelContract
from mskscreen.errors import ModelError, short
from mskscreen.inference.backends import BACKENDS, Outputs, Shape
from mskscreen.inference.catalogue import parse_contract
from mskscreen.inference.engines import Engine, check_ports, expected_outputs
from mskscreen.predictions import FLAG_UNAPPROVED

SHA256_KEY = "mskscreen.sha256"
_HEADER_LENGTH = "Inference-Header-Content-Length"
# How long a server may be silent, and how long a whole answer may take that comes byte by byte.
_SECONDS, _LONGEST = 60, 600
# Bytes of an answer, of which eight may be under way: a document, and tensors in JSON at so many a number.
_DOCUMENT = 32 << 20
_HEAD, _NUMBER = 64 << 10, 32
_PARALLEL = 4


def open_remote(url: str, contract: ModelContract | None = None) -> Engine:
    """The model at `http://HOST:PORT/v2/models/NAME`; a version may follow as `/versions/N`.

    The contract is that of the server's configuration; one that is given is used where the server holds none.
    Weights of another precision than f32 flag every row, unless all their gates on the server's engine passed: on
    which kind of machine it runs a server does not say. Raises ModelError where the server cannot be reached, is
    silent for a minute or takes ten for an answer, or the model is not what the contract says.
    """
    url = re.sub(r"//[^/]*@", "//", url, count=1)  # a name and password are not sent, and no message tells them
    server = _Server(url)
    about = server.get("")
    found = server.parameters()
    if METADATA_KEY in found:
        contract = parse_contract(url, found[METADATA_KEY])
    if contract is None:
        raise ModelError(
            f"{url}: the server holds no contract for this model; give one with --contract FILE (contract=)"
        )
    backend = Remote(server, about, contract)
    check_ports(url, contract, backend)
    digest = found.get(SHA256_KEY, "")
    flags = () if _approved(contract, str(about.get("platform", ""))) else (FLAG_UNAPPROVED,)
    why = "the server's choice"
    return Engine("remote", "unknown", contract, Path(url), digest, backend, why, flags, address=url)


def _approved(contract: ModelContract, platform: str) -> bool:
    """Whether the weights are f32, or have gates of the engine that `platform` names (else of any), all passed."""
    engines = [name for name in BACKENDS if name in platform.lower()] or list(BACKENDS)
    known = [f"{name}/{contract.precision}" for name in engines]
    gates = [gate.approves for key, gate in contract.approved.items() if key.partition("@")[0] in known]
    return contract.precision == "f32" or (bool(gates) and all(gates))


class Remote:
    """Runs on the server, `parallel` of them under way at a time.

    `source` is the address, without credentials, and the versions of the model that the server has. An output of
    one number an image may come as (B, 1): a configuration of Triton cannot say (B,).
    """

    def __init__(self, server: _Server, about: Mapping[str, Any], contract: ModelContract) -> None:
        self._server = server
        self._pool = ThreadPoolExecutor(2 * _PARALLEL, "remote")
        self.inputs: Mapping[str, Shape] = _shapes(about, "inputs", server.url)
        expected = expected_outputs(contract)
        self._wanted = list(expected)
        self._numbers = [name for name, shape in expected.items() if not shape]
        # An image has 9 scores, a novelty, and in its map no more cells than pixels.
        cells = math.prod(contract.input_size) if contract.map else 0
        self._most = _HEAD + _NUMBER * (contract.batch or 1) * (10 + cells)
        self.outputs: Mapping[str, Shape] = {
            name: shape[:1] if shape and name in self._numbers and shape[1:] == (1,) else shape
            for name, shape in _shapes(about, "outputs", server.url).items()
        }
        self.parallel = _PARALLEL
        self.source = {"address": server.address, "versions": list(map(str, about.get("versions") or ()))}

    def start(self, batch: np.ndarray) -> Callable[[], Outputs]:
        """Send a batch; the call that is returned waits for the answer."""
        return self._pool.submit(self._infer, batch).result

    def _infer(self, batch: np.ndarray) -> Outputs:
        found = self._server.infer(next(iter(self.inputs)), batch, self._wanted, self._most)
        return {
            name: value[:, 0] if name in self._numbers and value.shape[1:] == (1,) else value
            for name, value in found.items()
        }


class _Server:
    """Requests for one model, over one connection a thread."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._netloc, self._path = parts.netloc, parts.path.rstrip("/")
            self._kind(self._netloc)
            known = parts.scheme in ("http", "https") and parts.hostname and self._path.startswith("/v2/models/")
        except (ValueError, http.client.InvalidURL):
            known = False
        if not known:
            raise ModelError(f"{url}: is not the address of a model; give http://HOST:PORT/v2/models/NAME")
        self.url = url
        self.address = f"{parts.scheme}://{self._netloc}{self._path}"
        self._local = threading.local()
        about = self._json("GET", "/v2")
        with _of_protocol(url):
            self._binary = "binary_tensor_data" in (about.get("extensions") or ())

    def get(self, what: str) -> dict[str, Any]:
        """A document about the model."""
        return self._json("GET", self._path + what)

    def parameters(self) -> dict[str, str]:
        """Text parameters of the model's configuration; none where the server does not tell."""
        try:
            config = self.get("/config")
        except ModelError:
            return {}
        with _of_protocol(self.url):
            given = (config.get("parameters") or {}).items()
            return {key: str(value.get("string_value", "")) for key, value in given if isinstance(value, dict)}

    def infer(self, name: str, batch: np.ndarray, outputs: list[str], most: int) -> Outputs:
        """Outputs for a batch of float32, from an answer of at most `most` bytes."""
        tensor: dict[str, Any] = {"name": name, "shape": list(batch.shape), "datatype": "FP32"}
        wanted: list[dict[str, Any]] = [{"name": output} for output in outputs]
        tail, headers = b"", {"Content-Type": "application/json"}
        if self._binary:
            tail = batch.astype("<f4", copy=False).tobytes()
            tensor["parameters"] = {"binary_data_size": len(tail)}
            for output in wanted:
                output["parameters"] = {"binary_data": True}
        else:
            tensor["data"] = batch.ravel().tolist()
        head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
        if self._binary:
            headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(head))}
        answer, size = self._request("POST", self._path + "/infer", head + tail, headers, most)
        with _of_protocol(self.url):
            found = _tensors(answer, size)
            return {output: found[output] for output in outputs}

    def _json(self, method: str, path: str) -> dict[str, Any]:
        answer, _ = self._request(method, path, b"", {}, _DOCUMENT)
        with _of_protocol(self.url):
            return dict(json.loads(answer).items())

    def _request(
        self, method: str, path: str, body: bytes, headers: dict[str, str], most: int
    ) -> tuple[bytes, int | None]:
        """The body of an answer of at most `most` bytes, and where its JSON ends if tensors follow it."""
        for last in (False, True):
            fresh = getattr(self._local, "connection", None) is None
            if fresh:
                self._local.connection = self._kind(self._netloc, timeout=_SECONDS)
            connection = self._local.connection
            try:
                with _in_time(connection):
                    connection.request(method, path, body, headers)
                    response = connection.getresponse()
                    data = response.read(most + 1)
                if response.length and len(data) <= most:
                    raise http.client.IncompleteRead(data, response.length)
                break
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                connection.close()
                self._local.connection = None
                # A connection that was kept may have been closed by the server meanwhile; a new one may not.
                if fresh or last:
                    raise ModelError(
                        f"{self.url}: cannot be reached ({short(error, 200)}); is the server up?"
                    ) from error
        if len(data) > most:
            connection.close()
            self._local.connection = None
            raise ModelError(f"{self.url}: the server's answer is larger than {most:,} bytes")
        if response.status != 200:
            said = f"{short(response.reason)}: {short(data.decode('utf-8', 'replace'), 200)}"
            raise ModelError(f"{self.url}: the server answered {response.status} {said}")
        length = response.headers.get(_HEADER_LENGTH, "")
        with _of_protocol(self.url):
            return data, int(length) if length.isdecimal() else None


@contextmanager
def _in_time(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Break off what has not ended after `_LONGEST` seconds, as a TimeoutError."""
    if connection.sock is None:
        connection.connect()
    late = threading.Event()

    def end(line: socket.socket) -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(line, socket.SHUT_RDWR)  # that of SSL may not be called while another reads

    timer = threading.Timer(_LONGEST, end, [connection.sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            raise TimeoutError(f"no whole answer in {_LONGEST} s")


@contextmanager
def _of_protocol(url: str) -> Iterator[None]:
    """Turn what goes wrong in reading a server's answer into a ModelError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = short(f"{type(error).__name__}: {error}", 200)
        raise ModelError(
            f"{url}: the server's answer is not of the protocol ({reason}); check the address"
        ) from error


def _tensors(answer: bytes, size: int | None) -> Outputs:
    """The tensors of an answer: numbers in its JSON, or bytes behind it in the order of the outputs."""
    position = len(answer) if size is None else size
    results: Outputs = {}
    for output in json.loads(answer[:position])["outputs"]:
        shape = [int(length) for length in output["shape"]]
        count = math.prod(shape)
        if output["datatype"] != "FP32" or min(shape, default=1) < 0:
            raise ValueError(f"output '{output['name']}' is {output['datatype']} {shape}")
        length = (output.get("parameters") or {}).get("binary_data_size")
        if length is None:
            values = np.asarray(output["data"], np.float32).ravel()
        else:
            values = np.frombuffer(answer[position : position + length], "<f4")
            position += length
        if len(values) != count:
            raise ValueError(f"output '{output['name']}' holds {len(values)} of {count} numbers")
        results[str(output["name"])] = values.reshape(shape)
    return results


def _shapes(about: Mapping[str, Any], which: str, url: str) -> dict[str, Shape]:
    with _of_protocol(url):
        return {
            str(tensor["name"]): tuple(None if size < 0 else int(size) for size in tensor["shape"])
            for tensor in about[which]
        }
