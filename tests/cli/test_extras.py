"""A command whose extra is not installed says which one to install, in one sentence."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# None in sys.modules makes an import fail as it does where the package is absent.
ABSENT = "torch torchvision timm lightning onnx safetensors ray pyarrow numba scipy cleanlab captum"
PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys("{ABSENT}".split()))
from mskscreen.cli.main import run
run()
"""


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("train", "train . --out run"),
        ("train", "search . --out search"),
        ("train", "export a.png"),
        ("train", "networks"),
        ("train", "model import a.png"),
        ("cluster", "predict a.png --model tiny.onnx --ray"),
        ("data", "predict a.png --model tiny.onnx --output table.parquet"),
        ("data", "data index list.csv"),
        ("phantom", "phantom make phantoms"),
    ],
)
def test_a_missing_extra_is_one_sentence(
    extra: str, command: str, tiny_model: Callable[..., Path], write_png: Callable[..., Path], tmp_path: Path
) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    write_png(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,label\na.png,1\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"pip install '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
