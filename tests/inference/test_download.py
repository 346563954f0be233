"""A published file arrives whole and right, or not at all: servers break off, lie, and serve other bytes."""

import hashlib
import re
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mskscreen.cli import main
from mskscreen.errors import DataError, ModelError
from mskscreen.inference import catalogue
from mskscreen.inference.catalogue import PublishedModel
from mskscreen.inference.download import fetch

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A loopback server of one file; its fields say how it misbehaves."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.cut: list[int] = []  # bytes after which it breaks off, one request each
        self.ranges = True
        self.announced: str | None = None
        self.moved_to: str | None = None
        self.kind = "application/octet-stream"
        self.shift = 0
        self.requests: list[str | None] = []
        self.sent = 0
        self.midway: Callable[[], object] = lambda: None

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append(wanted)
        if self.moved_to:
            handler.send_response(302)
            handler.send_header("Location", self.moved_to)
            handler.end_headers()
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        body = self.content[begin:]
        handler.send_response(206 if begin else 200)
        if begin:
            handler.send_header("Content-Range", f"bytes {begin + self.shift}-{len(self.content) - 1}/x")
        handler.send_header("Content-Type", self.kind)
        if self.announced != "":
            handler.send_header("Content-Length", str(self.announced or len(body)))
        handler.end_headers()
        stop = self.cut.pop(0) if self.cut else len(body)
        handler.wfile.write(body[: stop // 2])
        self.midway()
        handler.wfile.write(body[stop // 2 : stop])
        self.sent += len(body[:stop])


@pytest.fixture
def server() -> Iterator[Any]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A client that has seen enough hangs up.
            with suppress(ConnectionError):
                state.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{running.server_port}/model.onnx"  # type: ignore[attr-defined]
    yield state
    running.shutdown()
    running.server_close()


@pytest.fixture
def get(server: Any, tmp_path: Path) -> Callable[[], bool]:
    def run() -> bool:
        return fetch(server.url, tmp_path / "models" / "m.onnx", len(CONTENT), SHA256)

    return run


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "models").iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once(get: Callable, server: Any, tmp_path: Path) -> None:
    assert get() is True
    assert (tmp_path / "models/m.onnx").read_bytes() == CONTENT
    assert get() is False
    assert len(server.requests) == 1
    (tmp_path / "models/m.onnx").write_bytes(CONTENT[:-1] + b"x")
    assert get() is True
    assert (tmp_path / "models/m.onnx").read_bytes() == CONTENT
    assert files(tmp_path) == ["m.onnx"]


def test_what_broke_off_goes_on_where_it_was(get: Callable, server: Any, tmp_path: Path) -> None:
    server.cut = [1_000_000, 700_000]
    assert get() is True
    assert (tmp_path / "models/m.onnx").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000000-", "bytes=1700000-"]
    assert server.sent == len(CONTENT)


def test_a_server_that_brings_nothing_more_ends_it_and_the_next_run_goes_on(
    get: Callable, server: Any, tmp_path: Path
) -> None:
    server.cut = [1_200_000, 0, 0, 0, 0, 0]
    with pytest.raises(ModelError, match=r"lost after 1,200,000 of 3,000,000 bytes.*goes on from there"):
        get()
    assert files(tmp_path) == ["m.onnx.part"]
    server.cut = []
    assert get() is True
    assert server.requests[-1] == "bytes=1200000-"
    assert (tmp_path / "models/m.onnx").read_bytes() == CONTENT


def test_a_full_disk_names_the_file_and_the_next_run_goes_on(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "models" / "m.onnx"
    known = PublishedModel("m", "M", path.name, len(CONTENT), SHA256, 8, server.url)
    monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path))
    monkeypatch.setattr(catalogue, "published", lambda: {"m": known})
    monkeypatch.setattr("sys.argv", ["mskscreen", "model", "download", "m"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
    try:
        with pytest.raises(SystemExit):
            main.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.search(
        r"error: m\.onnx: File too large; make room and run the same command again", capsys.readouterr().err
    )
    assert fetch(server.url, path, len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests[1].startswith("bytes=1")


def test_two_at_once_do_not_write_into_one_another(get: Callable, server: Any, tmp_path: Path) -> None:
    said = []

    def second() -> None:
        server.midway = lambda: None
        try:
            get()
        except DataError as error:
            said.append(str(error))

    server.midway = second
    assert get() is True
    assert "another process is writing m.onnx" in said[0]
    assert (tmp_path / "models/m.onnx").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_server_without_ranges_starts_over(get: Callable, server: Any, tmp_path: Path) -> None:
    server.ranges, server.cut = False, [1_000_000]
    assert get() is True
    assert (tmp_path / "models/m.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize("announced", ["10", "2999999", "3000001", "9" * 5000])
def test_another_size_than_published_is_refused_before_a_byte_is_kept(
    get: Callable, server: Any, tmp_path: Path, announced: str
) -> None:
    server.announced = announced
    with pytest.raises(ModelError, match=r"offers .* bytes where the published file has 3,000,000"):
        get()
    assert files(tmp_path) == []


def test_a_page_in_place_of_the_file_is_refused_and_not_kept(get: Callable, server: Any, tmp_path: Path) -> None:
    server.announced, server.content, server.kind = "", b"<html>Quota exceeded</html>", "text/html; charset=utf-8"
    with pytest.raises(ModelError, match="offers a web page in place of the file"):
        get()
    assert files(tmp_path) == []


def test_a_file_of_unknown_length_that_ends_early_is_another_file(
    get: Callable, server: Any, tmp_path: Path
) -> None:
    server.announced, server.content = "", CONTENT[:1000]
    with pytest.raises(ModelError, match="sent 1,000 bytes where the published file has 3,000,000"):
        get()
    assert files(tmp_path) == []
    assert len(server.requests) == 1


def test_more_bytes_than_published_are_not_stored(get: Callable, server: Any, tmp_path: Path) -> None:
    server.announced, server.content = "", CONTENT + bytes(50_000_000)
    with pytest.raises(ModelError, match="more bytes than the published file"):
        get()
    assert sum(path.stat().st_size for path in (tmp_path / "models").iterdir()) <= len(CONTENT)


def test_other_bytes_of_the_right_size_are_thrown_away(get: Callable, server: Any, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(ModelError, match="sent other bytes than the published"):
        get()
    assert files(tmp_path) == []


def test_a_part_of_another_file_is_found_out(get: Callable, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/m.onnx.part").write_bytes(b"x" * 1000)
    with pytest.raises(ModelError, match="other bytes"):
        get()
    assert get() is True


def test_a_part_that_is_too_long_starts_over(get: Callable, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/m.onnx.part").write_bytes(b"x" * (len(CONTENT) + 1))
    assert get() is True


def test_a_range_that_was_not_asked_for_is_refused(get: Callable, server: Any) -> None:
    server.cut, server.shift = [1_000_000], 5
    with pytest.raises(ModelError, match="another part of the file"):
        get()


def test_only_https_is_spoken_with_other_machines(get: Callable, server: Any, tmp_path: Path) -> None:
    for url in ("http://example.org/m.onnx", "ftp://example.org/m.onnx", "file:///etc/passwd"):
        with pytest.raises(ModelError, match="only HTTPS"):
            fetch(url, tmp_path / "models/m.onnx", 1, SHA256)
        server.moved_to = url
        with pytest.raises(ModelError, match=r"only HTTPS|answered 302"):
            get()
    assert not list(tmp_path.rglob("m.onnx"))


def test_a_redirect_to_nowhere_is_one_sentence(get: Callable, server: Any) -> None:
    server.moved_to = "http://["
    with pytest.raises(ModelError, match=r"^127\.0\.0\.1: redirects to what is no address"):
        get()


def test_offline_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/m.onnx"
        with pytest.raises(ModelError, match=r"cannot be reached.*offline.*mskscreen model import"):
            fetch(url, tmp_path / "m.onnx", 10, SHA256)
