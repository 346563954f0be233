"""A Screener whose model runs on a server of the Open Inference Protocol gives the rows of the model itself."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mskscreen import Screener
from mskscreen.cli.main import app
from mskscreen.contract import METADATA_KEY, Gate
from mskscreen.errors import ModelError, MskscreenError
from mskscreen.evaluation.explain.explainer import Explainer
from mskscreen.inference import open_engine, remote
from mskscreen.inference.catalogue import model_path, read_contract
from mskscreen.inference.remote import SHA256_KEY, open_remote
from mskscreen.inference.repository import triton_config
from mskscreen.predictions import FLAG_UNAPPROVED
from mskscreen.saliency.target import ABNORMAL

ENOUGH = {"studies": 100.0}
# What a server's trouble makes of an output.
SPOILT: dict[tuple[str, str], Callable[[np.ndarray], np.ndarray]] = {
    ("no map", "map"): lambda value: value[:, :, :0],
    ("other map", "map"): lambda value: value[:, :, 1:, 1:],
    ("flat map", "map"): lambda value: value.ravel(),
    ("huge map", "map"): lambda value: np.tile(value, (1, 1, 3, 3)),
    ("flood", "map"): lambda value: np.tile(value, (1, 1, 20, 20)),
    ("blind map", "map"): lambda value: np.where(value == value.max(), np.nan, value),
    ("blind novelty", "novelty"): lambda value: value * np.nan,
}


class Handler(BaseHTTPRequestHandler):
    """The protocol over one of our engines; the server's `trouble` spoils what it says."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        engine = self.server.engine
        if self.server.trouble == "closes" and self.server.asked:
            self.server.trouble = ""
            self.close_connection = True
            return
        self.server.asked += 1
        # As Triton tells them: with the sizes of the configuration that is written for it.
        text = triton_config(engine, "tiny")
        if self.server.trouble == "huge map":  # it does not tell beforehand
            text = text.replace("[1, 16, 16]", "[1, -1, -1]")
        told = re.findall(r'^(\w+) { name: "(\w+)".* dims: \[(.*?)\]', text, re.MULTILINE)
        ports: dict[str, list] = {"inputs": [], "outputs": []}
        for kind, name, dims in told:
            shape = [-1, *map(int, dims.split(", "))]
            ports[f"{kind}s"].append({"name": name, "datatype": "FP32", "shape": shape})
        if self.server.trouble == "lacks":
            ports["outputs"] = ports["outputs"][:1]
        texts = {METADATA_KEY: engine.contract.to_json(), SHA256_KEY: self.server.digest}
        config = {"parameters": {key: {"string_value": text} for key, text in texts.items()}}
        if self.server.trouble == "parameters":
            config = {"parameters": [1]}
        if self.server.trouble == "contract":
            config = {"parameters": {METADATA_KEY: {"string_value": "[]"}}}
        answers = {
            "/v2": {"name": "test", "extensions": ["binary_tensor_data"] * self.server.binary},
            f"/v2/models/{self.server.name}": {
                "name": self.server.name,
                "platform": "onnxruntime_onnx",
                "versions": self.server.versions,
                **ports,
            },
            f"/v2/models/{self.server.name}/config": config if self.server.knows else None,
        }
        if self.server.trouble == "extensions":
            answers["/v2"] = {"extensions": 5}
        if self.server.trouble == "shape":
            ports["inputs"][0]["shape"] = [[1]]
        if self.server.trouble == "deep":
            self.reply(b"[" * 200_000, 200)
            return
        answer = answers.get(self.path)
        self.reply(json.dumps(answer or {"error": "unknown"}).encode(), 200 if answer else 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = int(self.headers.get("Inference-Header-Content-Length") or len(body))
        asked = json.loads(body[:head])
        (image,) = asked["inputs"]
        assert bool(image.get("parameters")) == self.server.binary
        values = np.frombuffer(body[head:], "<f4") if self.server.binary else np.array(image["data"], np.float32)
        if self.server.trouble == "fails at length":
            self.send_response(500, "x" * 50_000)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.trouble == "fails":
            self.reply(b'{"error": "out of memory"}', 500)
            return
        results = self.server.engine.run(values.reshape(image["shape"]))
        outputs, tail = [], b""
        if self.server.trouble == "silent":
            asked["outputs"].pop()
        for wanted in asked["outputs"]:
            value = SPOILT.get((self.server.trouble, wanted["name"]), np.array)(results[wanted["name"]])
            value = np.ascontiguousarray(value, "<f4")
            value = value[:, None] if value.ndim == 1 else value
            entry = {"name": wanted["name"], "datatype": "FP32", "shape": list(value.shape)}
            if self.server.trouble == "endless":
                entry["shape"] = [float("inf")]
            if self.server.trouble == "tells at length":
                entry["shape"] = ["x" * 20_000]
            if self.server.trouble == "short":
                value = value.ravel()[:-1]
            if self.server.binary:
                entry["parameters"] = {"binary_data_size": value.nbytes}
                tail += value.tobytes()
            else:
                entry["data"] = value.ravel().tolist()
            outputs.append(entry)
        if self.server.trouble == "drips":
            self.reply(b"", 200, {"Content-Length": "9999"})
            with suppress(OSError):
                while not self.server.over.wait(0.01):
                    self.wfile.write(b" ")
            return
        head_out = json.dumps({"model_name": "tiny", "outputs": outputs}).encode()
        if self.server.trouble == "breaks off":
            self.reply(head_out + tail, 200, {"Content-Length": "9999"})
            self.close_connection = True
            return
        length = {"Inference-Header-Content-Length": str(len(head_out))} if self.server.binary else {}
        if self.server.trouble == "digits":
            length = {"Inference-Header-Content-Length": "9" * 5000}
        self.reply(head_out + tail, 200, length)

    def reply(self, data: bytes, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def serve(model: Path) -> Iterator[Callable[..., str]]:
    """Start a server with the tiny model; its address is returned."""
    servers = []

    def start(
        *,
        binary: bool = True,
        knows: bool = True,
        trouble: str = "",
        path: Path = model,
        name: str = "tiny",
        digest: str = "",
        versions: tuple[str, ...] = ("1",),
    ) -> str:
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        precision: Any = read_contract(path).precision
        server.engine = open_engine(path, precision=precision, threads=1, unapproved=True)
        server.binary, server.knows, server.digest = binary, knows, digest
        server.over = threading.Event()
        server.trouble, server.asked, server.name, server.versions = trouble, 0, name, versions
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v2/models/{name}"

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("binary", [True, False])
def test_rows_from_a_server_are_those_of_the_model(
    serve: Callable, model: Path, write_png: Callable, tmp_path: Path, binary: bool
) -> None:
    for i in range(7):
        write_png(tmp_path / f"{i}.png", i)
    (tmp_path / "7.png").write_bytes(b"no image")
    table = Screener(remote=serve(binary=binary)).predict(tmp_path)
    expected = Screener.load(model).predict(tmp_path)
    assert [row.error for row in table] == [row.error for row in expected]
    for one, other in zip(table.images[:7], expected.images[:7], strict=True):
        np.testing.assert_allclose(one.pred1, other.pred1, rtol=1e-6)
        assert (one.file, one.joint, one.digest) == (other.file, other.joint, other.digest)
    assert table.model["engine"] == "remote"


def test_triton_gives_a_number_for_each_image_as_a_column(
    serve: Callable, with_novelty: Path, write_png: Callable, tmp_path: Path
) -> None:
    image = write_png(tmp_path / "a.png")
    (row,) = Screener(remote=serve(path=with_novelty)).predict(image)
    (expected,) = Screener.load(with_novelty).predict(image)
    assert row.novelty == pytest.approx(expected.novelty, rel=1e-6)


@pytest.mark.parametrize(
    ("precision", "gates", "flagged"),
    [
        ("f32", {}, False),
        ("int8", {}, True),
        ("int8", {"onnxruntime/int8@a": Gate(True, ENOUGH), "onnxruntime/int8@b": Gate(False)}, True),
        ("int8", {"onnxruntime/int8@a": Gate(True, ENOUGH), "openvino/int8": Gate(False)}, False),
        ("int8", {"openvino/int8": Gate(True, ENOUGH)}, True),
        ("int8", {"onnxruntime/int8": Gate(True, {"studies": 99.0})}, True),
    ],
)
def test_weights_that_no_gate_of_the_servers_engine_passed_flag_every_row(
    serve: Callable,
    tiny_model: Callable,
    tiny_contract: Callable,
    tmp_path: Path,
    precision: str,
    gates: dict,
    flagged: bool,
) -> None:
    path = tiny_model(tmp_path / "m.onnx", contract=tiny_contract(precision=precision, approved=gates))
    (row,) = Screener(remote=serve(path=path)).predict(np.full((40, 40), 90, np.uint8))
    assert (FLAG_UNAPPROVED in row.flags) == flagged


def test_the_job_of_a_model_on_a_server_holds_where_it_is_and_its_version(serve: Callable, model: Path) -> None:
    contract = read_contract(model)
    url = serve(knows=False)
    urls = [url, serve(knows=False, name="other"), serve(knows=False, versions=("2",))]
    found = [Screener(remote=each, contract=contract).describe() for each in (*urls, url)]
    assert found[0] == found[3]
    assert found[0]["server"] == {"address": url, "versions": ["1"]}
    assert len({json.dumps(each) for each in found}) == 3
    secret = Screener(remote=url.replace("//", "//user:secret@") + "?token=secret", contract=contract)
    assert secret.describe() == found[0]


@pytest.mark.parametrize("digest", ["", "00"])
def test_only_a_server_that_tells_the_digest_of_its_model_lets_a_table_be_finished(
    serve: Callable, write_png: Callable, tmp_path: Path, digest: str
) -> None:
    command = ["predict", str(write_png(tmp_path / "a.png")), "--model", serve(digest=digest)]
    command += ["-o", str(tmp_path / "t.json")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert ("finished already" in CliRunner().invoke(app, command).stderr) == bool(digest)


def test_an_address_is_a_name_of_a_model(serve: Callable, write_png: Callable, tmp_path: Path) -> None:
    image = write_png(tmp_path / "a.png")
    assert Screener.load(serve()).predict(image).images[0].error is None


def test_a_server_without_contract_needs_one_that_is_given(serve: Callable, model: Path) -> None:
    url = serve(knows=False)
    with pytest.raises(ModelError, match="holds no contract"):
        Screener(remote=url)
    contract = open_engine(model).contract
    assert open_remote(url, contract).contract == contract


def test_a_connection_that_was_closed_meanwhile_is_opened_again(serve: Callable) -> None:
    assert open_remote(serve(trouble="closes")).contract.name == "tiny"


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("fails", "answered 500.*out of memory"),
        ("fails at length", "answered 500 xxx"),
        ("tells at length", "not of the protocol"),
        ("breaks off", "cannot be reached"),
        ("lacks", "has no output"),
        ("no map", r"output 'map' has shape \(1, 1, 0, 16\)"),
        ("other map", r"output 'map' has shape \(1, 1, 15, 15\)"),
        ("flat map", r"output 'map' has shape \(256, 1\)"),
        ("huge map", r"output 'map' has shape \(1, 1, 48, 48\)"),
        ("flood", "answer is larger than"),
        ("contract", "not a JSON object"),
        *(
            (trouble, "not of the protocol")
            for trouble in ("short", "silent", "endless", "extensions", "parameters")
        ),
        *((trouble, "not of the protocol") for trouble in ("deep", "shape", "digits")),
    ],
)
def test_what_a_server_does_wrong_is_one_clear_error(
    serve: Callable, write_png: Callable, tmp_path: Path, trouble: str, said: str
) -> None:
    url = serve(trouble=trouble)
    with pytest.raises(MskscreenError, match=f"^{url}.*{said}") as caught:
        Screener(remote=url).predict(write_png(tmp_path / "a.png"))
    assert len(str(caught.value)) < 500


def test_an_answer_that_drips_is_not_waited_for_for_ever(
    serve: Callable, write_png: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_LONGEST", 0.5)
    url = serve(trouble="drips")
    with pytest.raises(ModelError, match=rf"^{url}: cannot be reached \(no whole answer in 0\.5 s\)"):
        Screener(remote=url).predict(write_png(tmp_path / "a.png"))


@pytest.mark.parametrize("what", ["map", "novelty"])
def test_an_output_of_a_server_that_is_no_number_is_an_error_of_the_image(
    serve: Callable, with_novelty: Path, write_png: Callable, tmp_path: Path, what: str
) -> None:
    url = serve(path=with_novelty, trouble=f"blind {what}")
    (row,) = Screener(remote=url).predict(write_png(tmp_path / "a.png"))
    assert f"a.png: the model's {what} is not finite" in str(row.error)
    assert not row.scored


def test_a_map_that_asks_for_a_servers_layers_is_refused_by_its_address(serve: Callable) -> None:
    url = serve()
    explainer = Explainer(open_remote(url))
    image = np.zeros((1, 32, 32), np.float32)
    with pytest.raises(ModelError, match=f"^{url}: is on a server"):
        explainer(image, "gradcam", ABNORMAL)
    assert explainer(image, "occlusion", ABNORMAL).passes > 0


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/v2/models/tiny", "http://127.0.0.1:1", "ftp://a/v2/models/b"),
        *("http://a:abc/v2/models/b", "http://a:99999/v2/models/b", "http://[::1/v2/models/b"),
        *("http://a b/v2/models/c", "http://a..b/v2/models/c", "http://127.0.0.1:1/v2/models/ä"),
    ],
)
def test_an_address_that_leads_nowhere_is_named(url: str) -> None:
    with pytest.raises(ModelError, match=re.escape(url)):
        Screener(remote=url)


@pytest.mark.parametrize("rest", ["127.0.0.1:1/v2/models/m", "127.0.0.1:1/", "127.0.0.1:x/v2/models/m"])
def test_no_message_tells_the_password_in_an_address(rest: str) -> None:
    with pytest.raises(ModelError, match=f"^http://{rest}: ") as caught:
        open_remote(f"http://user:p@ss@{rest}")
    assert "ss@" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "option"),
    [
        ({"engine": "openvino"}, "--engine"),
        ({"precision": "f32", "unapproved": True}, "--precision and --force-precision"),
    ],
)
def test_what_only_a_file_can_be_asked_for_is_refused(asked: Any, option: str) -> None:
    with pytest.raises(ModelError, match=f"a server chooses .*; leave out {option}$"):
        Screener.load("http://127.0.0.1:1/v2/models/tiny", **asked)


def test_sanity_asks_for_the_file_of_a_model_on_a_server() -> None:
    found = CliRunner().invoke(app, ["explain", "sanity", "a.png", "--model", "http://127.0.0.1:1/v2/models/tiny"])
    assert found.exit_code == 2
    assert "a server shows no layers; name the model's file" in " ".join(found.stderr.split())


def test_a_file_has_its_own_contract(model: Path) -> None:
    with pytest.raises(ModelError, match="its own contract counts"):
        Screener.load(model, contract=read_contract(model))


@pytest.mark.parametrize("form", ["onnx", "toml", "name"])
def test_predict_takes_the_contract_of_a_server_that_holds_none_from_a_file(
    serve: Callable, model: Path, write_png: Callable, tmp_path: Path, form: str
) -> None:
    served = model_path("demo") if form == "name" else model
    file = "demo" if form == "name" else served
    if form == "toml":
        file = tmp_path / "contract.toml"
        size = "input_size = [32, 32]\nmap = {method = 'hirescam', layer = 'relu', stride = 2}\n"
        steps = read_contract(model).preprocessing
        file.write_text(f"name = 'tiny'\narchitecture = 'tiny'\npreprocessing = '{steps}'\n{size}")
    image = write_png(tmp_path / "a.png")
    command = ["predict", str(image), "--model", serve(knows=False, path=served), "--format", "json"]
    assert "--contract" in str(CliRunner().invoke(app, command).exception)
    done = CliRunner().invoke(app, [*command, "--contract", str(file)])
    (row,) = json.loads(done.stdout)["images"]
    np.testing.assert_allclose(row["pred1"], Screener.load(served).predict(image).images[0].pred1, rtol=1e-6)
