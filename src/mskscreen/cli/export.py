"""The verb `export`: a checkpoint becomes the one ONNX file that every other verb reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mskscreen.cli.common import err, needs


def export(
    checkpoint: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .safetensors checkpoint.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The ONNX file; else beside the checkpoint.")
    ] = None,
) -> None:
    """Write a checkpoint as one ONNX file with its contract, and check it on both engines.

    The file appears only if OpenVINO and ONNX Runtime give the network's outputs to one part in a thousand.
    """
    with needs("train"):
        from mskscreen.export import export_onnx
        from mskscreen.networks.checkpoint import load_checkpoint
    out = out or checkpoint.with_suffix(".onnx")
    network, contract = load_checkpoint(checkpoint)
    with err.status("exporting"):
        export_onnx(network, contract, out)
    print(out)
