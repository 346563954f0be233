"""`mskscreen predict` with the tiny model, and a MURA folder for it."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mskscreen.cli import main


class Done(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Done]:
    """Run `mskscreen predict` with the tiny model."""

    def command(*arguments: object, stdin: str = "", model: object = model) -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setattr(sys, "argv", ["mskscreen", "predict", *map(str, arguments), "--model", str(model)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main.run()
        return Done(int(caught.value.code or 0), *capsys.readouterr())

    return command


@pytest.fixture
def mura(tmp_path: Path, write_png: Callable) -> Path:
    """Three studies in MURA's folders, five images, one of them corrupt."""
    root = tmp_path / "MURA-v1.1" / "valid"
    for number, name in enumerate(
        [
            "XR_ELBOW/patient00001/study1_positive/image1.png",
            "XR_ELBOW/patient00001/study1_positive/image2.png",
            "XR_HAND/patient00001/study1_negative/image1.png",
            "XR_HAND/patient00002/study1_negative/image1.png",
            "XR_HAND/patient00002/study1_negative/image2.png",
        ]
    ):
        write_png(root / name, number)
    (root / "XR_HAND/patient00002/study1_negative/image2.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return root
