"""The verb `export`: a checkpoint becomes the one ONNX file that every other verb reads, at any precision."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mskscreen.cli.common import Exit, Format, err, needs, progress, show

if TYPE_CHECKING:
    from mskscreen.contract import ModelContract
    from mskscreen.export.precisions import Request


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="A .safetensors checkpoint, or an .onnx file to add to."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The ONNX file; else beside the checkpoint.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Any of f32, bf16, int8, separated by commas.")] = "f32",
    calibration: Annotated[
        Path | None, typer.Option(help="Manifest whose training images int8 is calibrated on.", exists=True)
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Manifest whose development fold the gate judges.", exists=True)
    ] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="How many images to calibrate on.")] = 300,
    triton: Annotated[
        Path | None, typer.Option(help="Also write the f32 model as a repository of Triton to this folder.")
    ] = None,
    ovms: Annotated[
        Path | None, typer.Option(help="Also write it as one of OpenVINO Model Server to this folder.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the gates.")] = Format.TABLE,
) -> None:
    """Write a checkpoint as one ONNX file with its contract, and check it on both engines.

    The file appears only if OpenVINO and ONNX Runtime give the network's outputs to one part in a thousand. A
    faster precision is approved, for this kind of machine, only if it passes the gate; exit code 3 says that one
    did not.
    """
    wanted = [name.strip() for name in precision.split(",")]
    if unknown := set(wanted) - {"f32", "bf16", "int8"}:
        raise typer.BadParameter(
            f"unknown precision '{min(unknown)}'; use f32, bf16, int8", param_hint="--precision"
        )
    out = out or checkpoint.with_suffix(".onnx")
    faster = [name for name in ("bf16", "int8") if name in wanted]
    if (triton or ovms) and checkpoint.suffix == ".onnx" and not faster:
        _write_repositories(checkpoint, triton, ovms)
        return
    with needs("train"):
        from mskscreen.data.manifest import Manifest
        from mskscreen.export.precisions import Request, add_precisions
    request = Request(
        faster,
        Manifest.read(calibration) if calibration else None,
        Manifest.read(gate) if gate else None,
        calibration_images,
    )
    if not faster:
        _f32(checkpoint, out)
        _write_repositories(out, triton, ovms)
    else:
        with ExitStack() as stack:
            model = checkpoint
            if checkpoint.suffix != ".onnx":
                folder = stack.enter_context(tempfile.TemporaryDirectory(dir=out.parent, prefix=".export."))
                model = Path(folder) / "f32.onnx"
                _f32(checkpoint, model)

            def track(text: str, total: int) -> Callable[[int], None]:
                return stack.enter_context(progress(text, total))

            contract, done = add_precisions(model, request, out, track)
        _write_repositories(out, triton, ovms)
        if not done:
            err.print(f"{out}: is finished already; nothing to do")
        if not _show_gates(contract, request, form):
            raise typer.Exit(Exit.SOME_FAILED)
    if form is Format.TABLE:
        print(out)


def _write_repositories(model: Path, triton: Path | None, ovms: Path | None) -> None:
    from mskscreen.inference.repository import write_ovms, write_triton

    for folder, write in ((triton, write_triton), (ovms, write_ovms)):
        if folder:
            print(write(model, folder))


def _f32(checkpoint: Path, out: Path) -> None:
    from mskscreen.errors import ModelError
    from mskscreen.export import export_onnx
    from mskscreen.networks.checkpoint import load_checkpoint

    if checkpoint.suffix == ".onnx":
        raise ModelError(f"{checkpoint}: is f32 ONNX already; add to it with --precision bf16,int8")
    network, contract = load_checkpoint(checkpoint)
    with err.status("exporting"):
        export_onnx(network, contract, out)


def _show_gates(contract: ModelContract, request: Request, form: Format) -> bool:
    """Print the gates of this kind of machine; whether all of what was asked for has passed."""
    from mskscreen.inference.machine import machine_kind

    rows = []
    for key, gate in contract.approved.items():
        name, _, machine = key.partition("@")
        if machine == machine_kind() and name.rpartition("/")[2] in request.precisions:
            rows.append({"precision": name, "outcome": "passed" if gate.passed else "failed", **gate.measures})
    if rows:
        show(rows, form, title=f"Gates on {machine_kind()}")
    else:
        err.print("nothing was gated, so f32 stays in use: name development images with --gate")
    return all(row["outcome"] == "passed" for row in rows)
