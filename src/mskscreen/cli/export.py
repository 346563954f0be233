"""The verb `export`: a checkpoint becomes the one ONNX file that every other verb reads, at any precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mskscreen.cli.common import Exit, Format, check_model_output, err, needs, progress, refuse_idle, show

if TYPE_CHECKING:
    from mskscreen.contract import ModelContract
    from mskscreen.export.precisions import Request


def export(
    context: typer.Context,
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A .safetensors checkpoint, the folder of a run, or an .onnx file or a model's name to add to."
        ),
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
        Path | None,
        typer.Option(file_okay=False, help="Also write the file as a repository of Triton to this folder."),
    ] = None,
    ovms: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Also write it as one of OpenVINO Model Server to this folder."),
    ] = None,
    force_precision: Annotated[
        bool, typer.Option("--force-precision", help="Write a repository of an int8 file even if its gate failed.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to print the gates.")] = Format.TABLE,
) -> None:
    """Write a checkpoint as one ONNX file with its contract, and check it on both engines.

    The file appears only if OpenVINO and ONNX Runtime give the network's outputs to one part in a thousand. A
    faster precision is approved, for this kind of machine, only if it passes the gate; exit code 3 says that one
    did not, or that no engine of this machine computes in it.
    """
    file = _found(checkpoint)
    wanted = [name.strip() for name in precision.split(",")]
    if unknown := set(wanted) - {"f32", "bf16", "int8"}:
        raise typer.BadParameter(
            f"unknown precision '{min(unknown)}'; use f32, bf16, int8", param_hint="--precision"
        )
    faster = [name for name in ("bf16", "int8") if name in wanted]
    if not faster:
        refuse_idle(context, "without --precision bf16 or int8", "calibration", "gate", "form")
    if "int8" not in faster:
        refuse_idle(context, "without --precision int8", "calibration")
    if not calibration:
        refuse_idle(context, "without --calibration", "calibration_images")
    if not (triton or ovms):
        refuse_idle(context, "without --triton and --ovms", "force_precision")
    if (triton or ovms) and file.suffix == ".onnx" and not faster:
        refuse_idle(context, "where a file that is ONNX already is only copied to a repository", "out")
        _write_repositories(file, triton, ovms, force_precision, form)
        return
    if out is None and file.suffix == ".onnx" and file != Path(checkpoint):
        raise typer.BadParameter(f"say where to write what is made of '{checkpoint}'", param_hint="--out")
    out = out or file.with_suffix(".onnx")
    check_model_output(out)
    with needs("train"):
        from mskscreen.data.manifest import Manifest
        from mskscreen.export.precisions import Request, add_precisions, int8_file, work_folder
    if "int8" in faster:
        check_model_output(int8_file(out))
    request = Request(
        faster,
        Manifest.read(calibration) if calibration else None,
        Manifest.read(gate) if gate else None,
        calibration_images,
    )
    with ExitStack() as stack:
        if faster and file.suffix == ".onnx":
            model = file
        else:
            model = _f32(file, out, stack.enter_context(work_folder(out, "export")))
        passed = True
        if not faster:
            if model == out:
                err.print(f"{out}: is there already; nothing to do")
            else:
                model.replace(out)
            _write_repositories(out, triton, ovms, force_precision, form)
        else:

            def track(text: str, total: int) -> Callable[[int], None]:
                return stack.enter_context(progress(text, total))

            contract, done = add_precisions(model, request, out, track)
            _write_repositories(out, triton, ovms, force_precision, form)
            if not done:
                err.print(f"{out}: is finished already; nothing to do")
            passed = _show_gates(contract, request, form)
    if form is Format.TABLE:
        print(out)
    if not passed:
        raise typer.Exit(Exit.SOME_FAILED)


def _found(name: str) -> Path:
    """The file of that name, the best checkpoint in the folder of a run, or a bundled or downloaded model."""
    from mskscreen.errors import ModelError
    from mskscreen.inference.catalogue import model_path
    from mskscreen.training.protocol import BEST

    best = Path(name) / BEST
    if best.is_file():
        return best
    try:
        return model_path(name)
    except ModelError as error:
        gone = Path(name).suffix == ".safetensors" and not Path(name).exists()
        said = f"file '{name}' does not exist" if gone else str(error)
        raise typer.BadParameter(said, param_hint="'checkpoint'") from error


def _write_repositories(
    model: Path, triton: Path | None, ovms: Path | None, unapproved: bool, form: Format
) -> None:
    from mskscreen.inference.repository import write_ovms, write_triton

    for folder, write in ((triton, write_triton), (ovms, write_ovms)):
        if folder:
            place, new = write(model, folder, unapproved=unapproved)
            if not new:
                err.print(f"{place}: is there already; nothing to do")
            if form is Format.TABLE:
                print(place)


def _f32(checkpoint: Path, out: Path, folder: Path) -> Path:
    """The checkpoint as an f32 file: `out` where it is that, with gates and variants, else one in `folder`."""
    from mskscreen.errors import ModelError
    from mskscreen.export import export_onnx
    from mskscreen.export.precisions import same_model
    from mskscreen.networks.checkpoint import load_checkpoint

    if checkpoint.suffix == ".onnx":
        raise ModelError(f"{checkpoint}: is ONNX already; add to it with --precision bf16,int8")
    network, contract = load_checkpoint(checkpoint)
    made = folder / "f32.onnx"
    with err.status("exporting"):
        export_onnx(network, contract, made)
    return out if same_model(made, out) else made


def _show_gates(contract: ModelContract, request: Request, form: Format) -> bool:
    """Print what became of each precision on each engine; whether no gate failed and each is computed by one."""
    from mskscreen.export.gate import shares
    from mskscreen.export.precisions import FAILED, NOT_GATED, NOT_HERE, TOO_FEW, outcomes
    from mskscreen.inference.machine import machine_kind

    found = outcomes(contract, request.precisions)
    columns = dict.fromkeys(key for outcome in found for key in outcome.measures)
    rows = [
        {
            "precision": f"{outcome.engine}/{outcome.precision}",
            "outcome": outcome.what,
            **{key: outcome.measures.get(key) for key in columns},
        }
        for outcome in found
    ]
    show(rows, form, title=f"Gates on {machine_kind()}")
    for outcome in found:
        beyond = [
            f"{name} {share:.4g} times its limit" for name, share in shares(outcome.measures).items() if share > 1
        ]
        if beyond:
            err.print(f"{outcome.engine}/{outcome.precision} failed: {', '.join(beyond)}")
    if any(outcome.what == NOT_GATED for outcome in found):
        err.print("what was not gated stays unused: name development images with --gate")
    computed = {outcome.precision for outcome in found if outcome.what != NOT_HERE}
    return computed >= set(request.precisions) and all(o.what not in (FAILED, TOO_FEW) for o in found)
