"""Fetches a published file: over HTTPS, going on where it stopped, and only if size and SHA-256 are right."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mskscreen.errors import ModelError, short
from mskscreen.inference.precision import sha256_of
from mskscreen.lock import locked

_CHUNK = 1 << 20
_TIMEOUT = 30.0
# Attempts in a row that bring no byte before it gives up.
_PATIENCE = 3
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def fetch(url: str, path: Path, size: int, sha256: str, advance: Callable[[int], None] = lambda _: None) -> bool:
    """Fetch `url` to `path` unless the right file is there; returns whether anything was fetched.

    What an earlier attempt left in `NAME.part` is used. `size` in bytes and `sha256` must be those of the file,
    and nothing beyond `size` is stored. Only HTTPS is spoken, save with this machine itself. `advance` gets the
    bytes that have come. Raises ModelError that says what to do, and DataError where another process fetches it.
    """
    if path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256:
        return False
    _require_safe(url)
    with locked(path.with_name(f"{path.name}.lock"), path.name):
        try:
            _fetch(url, path, size, sha256, advance)
        except OSError as error:
            if error.errno and error.filename is None:  # what fails to write names no file
                error.filename = str(path)
            raise
    return True


def _fetch(url: str, path: Path, size: int, sha256: str, advance: Callable[[int], None]) -> None:
    part = path.with_name(f"{path.name}.part")
    if _size(part) > size:
        part.unlink()
    idle = 0
    advance(_size(part))
    while (before := _size(part)) != size:
        try:
            _append(url, part, size, advance)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            broken = type(error).__name__
        else:
            broken = "it broke off"
        idle = 0 if _size(part) > before else idle + 1
        if _size(part) < size and idle >= _PATIENCE:
            raise ModelError(
                f"{_host(url)}: the connection is lost after {_size(part):,} of {size:,} bytes ({broken}); "
                "run the command again, it goes on from there"
            )
    if sha256_of(part) != sha256:
        part.unlink()
        raise ModelError(f"{_host(url)}: sent other bytes than the published {path.name}; nothing was kept")
    part.replace(path)


def _append(url: str, part: Path, size: int, advance: Callable[[int], None]) -> None:
    """One request for the bytes that are missing."""
    begin = _size(part)
    headers = {"User-Agent": "mskscreen", "Accept-Encoding": "identity"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
    try:
        answer = _opener().open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)  # noqa: S310 - checked
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        raise ModelError(
            f"{_host(url)}: answered {error.code} ({short(error.reason)}); {_by_hand(url)}"
        ) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionError | TimeoutError) and begin:
            raise ConnectionError from error
        raise ModelError(
            f"{_host(url)}: cannot be reached ({short(error.reason, 200)}); where this machine is offline, fetch "
            f"{url} on another one and give the file to: mskscreen model import"
        ) from error
    except ValueError as error:
        raise ModelError(f"{_host(url)}: redirects to what is no address; {_by_hand(url)}") from error
    with answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {begin}-"):
            raise ModelError(f"{_host(url)}: sent another part of the file than was asked for; try again later")
        start = begin if resumed else 0
        announced = answer.headers.get("Content-Length", "")
        # Python reads no number of thousands of digits.
        offered = start + int(announced[:20]) if announced.isdecimal() else size
        if offered != size:
            raise ModelError(
                f"{_host(url)}: offers {offered:,} bytes where the published file has {size:,}; "
                "it is another file, or a page about it"
            )
        if answer.headers.get_content_type() == "text/html":
            raise ModelError(f"{_host(url)}: offers a web page in place of the file; {_by_hand(url)}")
        advance(start - begin)
        with part.open("ab" if resumed else "wb") as stream:
            _copy(answer, stream, size - start, advance, _host(url))
        if not (announced or resumed) and (found := _size(part)) < size:  # it ended, and did not break off
            part.unlink()
            raise ModelError(
                f"{_host(url)}: sent {found:,} bytes where the published file has {size:,}; it is another file"
            )


def _copy(answer: Any, stream: Any, missing: int, advance: Callable[[int], None], host: str) -> None:
    while chunk := _read(answer, min(_CHUNK, missing + 1)):
        if len(chunk) > missing:
            raise ModelError(f"{host}: sends more bytes than the published file has; it is another file")
        stream.write(chunk)
        missing -= len(chunk)
        advance(len(chunk))


def _read(answer: Any, most: int) -> bytes:
    """Bytes of an answer; an end of the connection is a ConnectionError or TimeoutError, no fault of a file."""
    try:
        return bytes(answer.read(most))
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise ConnectionError from error


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where `fetch` would have gone itself."""

    def redirect_request(self, request: Any, stream: Any, code: int, text: str, headers: Any, new: str) -> Any:
        _require_safe(new)
        return super().redirect_request(request, stream, code, text, headers, new)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SafeRedirects)


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _THIS_MACHINE):
        raise ModelError(
            f"{_host(url)}: offers the file over {parts.scheme or 'no protocol'}; only HTTPS is spoken"
        )


def _by_hand(url: str) -> str:
    return f"fetch {url} with a browser and give the file to: mskscreen model import"


def _host(url: str) -> str:
    return short(urlsplit(url).hostname or url)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
