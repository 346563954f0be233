"""`mskscreen review`: a blinded pack of cases for readers, and the statistics of the forms that come back."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common
from mskscreen.cli.common import Format

app = typer.Typer(
    help="Let radiologists read blinded cases, without and with the maps, and score their forms.",
    no_args_is_help=True,
)


@app.command()
def pack(
    predictions: Annotated[Path, typer.Argument(help="A predictions table.", exists=True, dir_okay=False)],
    cases: Annotated[int, typer.Option(min=2, help="How many studies, half of them abnormal.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the pack; readers get one of the folders in it at a time.")
    ],
    labels: common.Labels = None,
    label_column: common.LabelColumn = "label",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images, if not where the table says.", exists=True, file_okay=False),
    ] = None,
    model: Annotated[str, typer.Option(help="The model that made the table, for the maps.")] = "demo",
    key: Annotated[
        Path | None, typer.Option(help="File for the key. By default the pack's name with .key.json, beside it.")
    ] = None,
    readers: Annotated[int, typer.Option(min=1, help="How many readers get forms of their own.")] = 3,
    repeats: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of cases that each reader sees twice.")
    ] = 0.1,
    seed: Annotated[
        int | None, typer.Option(min=0, help="By default a random one, which the key records.")
    ] = None,
) -> None:
    """Write a blinded, shuffled, balanced pack of cases with forms and a frozen protocol; the key lies outside."""
    from mskscreen.cli.cases import join_labels, read_any, screener_of
    from mskscreen.inference.precision import sha256_of
    from mskscreen.review.pack import Design, finished, make_pack, phases_of
    from mskscreen.review.protocol import AIDED, PAUSE, UNAIDED

    key = key or _key_beside(out)
    request: dict[str, Any] = {
        "predictions_sha256": sha256_of(predictions),
        "labels_sha256": labels and sha256_of(labels),
        "label_column": label_column,
        "model": model,
        "cases": cases,
        "readers": readers,
        "repeats": repeats,
        "seed": seed,
    }
    if finished(out, key, request):
        common.err.print(f"{out}: is finished already; nothing to do")
        return
    table = read_any(predictions)
    screener = screener_of(model, table, predictions)
    aided = AIDED in phases_of(screener)
    if not aided:
        common.err.print(f"{model}: has no map, so that the pack has no {AIDED} phase")
    studies = join_labels(table, labels, label_column).cases()
    design = Design(cases, readers, repeats, secrets.randbits(64) if seed is None else seed)
    with common.progress("drawing images", None) as advance:
        frozen = make_pack(out, key, studies, screener, design, root=images, request=request, advance=advance)
    common.err.print(f"{out}: {cases} cases for {readers} readers; {NOT_FOR_DIAGNOSIS}")
    if aided:
        common.err.print(f"{out / UNAIDED}: hand it out alone, and {out / AIDED} {PAUSE} later")
    common.err.print(f"{key}: keep it from the readers until every form is back")
    common.err.print(f"protocol sha256 {frozen}: lodge it before the first reading")


@app.command("score")
def score_forms(
    pack: Annotated[Path, typer.Argument(help="The folder of the pack.", exists=True, file_okay=False)],
    forms: Annotated[
        list[Path] | None,
        typer.Argument(help="Forms that came back, or their folder. By default the pack's own.", exists=True),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The key. By default the pack's name with .key.json, beside it.", exists=True),
    ] = None,
    form: common.FormatOption = Format.TABLE,
) -> None:
    """Print accuracy without and with aid, agreement between and within readers, and what they say of the maps."""
    from mskscreen.evaluation.as_json import plain
    from mskscreen.review.forms import read_forms
    from mskscreen.review.protocol import FORMS, open_pack
    from mskscreen.review.score import score

    opened, digest = open_pack(pack, key or _key_beside(pack))
    analysis = opened.protocol["analysis"]
    answers = read_forms(forms or [pack / phase / FORMS for phase in opened.protocol["phases"]], opened)
    scores = score(opened, answers, resamples=analysis["resamples"], seed=analysis["seed"])
    if form is Format.JSON:
        print(json.dumps({"protocol_sha256": digest} | plain(scores), indent=1, allow_nan=False))
        return
    common.show([asdict(row) for row in scores.returned], form, title="Cases called, of those in the forms")
    for title, rows in (
        ("Against the truth, mean over readers; 95 % intervals", scores.accuracy),
        ("Between readers", scores.between),
        ("Within readers, on the cases shown twice", scores.within),
        ("What readers say of the map", scores.maps),
        ("Maximum of the map in the readers' boxes or near them", scores.pointing),
    ):
        shown = [
            {"who": row.who, "of": row.of, "cases": row.cases, **{k: str(v) for k, v in row.figures.items()}}
            for row in rows
        ]
        if shown:
            common.show(shown, form, title=title)
    if scores.mapless:
        common.err.print(f"left out: {scores.mapless} answers about a map where none was shown")
    common.err.print(f"protocol sha256 {digest}")
    common.err.print(f"half of the cases are abnormal, in a clinic fewer are; {NOT_FOR_DIAGNOSIS}")


def _key_beside(pack: Path) -> Path:
    """Where the key of a pack is kept; `.` and `..` stand for folders with a name of their own."""
    named = pack if pack.name not in ("", "..") else pack.resolve()
    return named.with_name(f"{named.name}.key.json")
