"""`mskscreen data`: index a data set, check and audit it, relabel, split and cache it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mskscreen.cli.common import (
    Exit,
    Format,
    FormatOption,
    alarm,
    err,
    needs,
    progress,
    refuse_idle,
    show,
    to_make,
)
from mskscreen.data.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from mskscreen.data.audit.rotation import JointHead
    from mskscreen.data.counts import Difference
    from mskscreen.data.findings import Findings
    from mskscreen.data.manifest import Manifest

app = typer.Typer(help="Index, check, audit, relabel, split and cache a data set.", no_args_is_help=True)
Source = Annotated[Kind, typer.Option(help="Kind of data set; 'auto' looks at the folder.")]
Links = Annotated[bool, typer.Option("--allow-links", help="Follow symbolic links that lead out of ROOT.")]
ManifestFile = Annotated[Path, typer.Argument(help="Manifest written by `data index`.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0 for one a core.")]
FindingsFile = Annotated[
    Path | None,
    typer.Option("--findings", help="CSV to write with every finding, its file and its line.", callback=to_make),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write.", callback=to_make)]


@app.command()
def index(
    root: Annotated[Path, typer.Argument(help="Folder of the data set, or a CSV with a column `path`.")],
    out: Out = Path("index.parquet"),
    source: Source = Kind.AUTO,
    sha256: Annotated[bool, typer.Option("--sha256", help="Read every file and record its SHA-256.")] = False,
    links: Links = False,
    all_findings: FindingsFile = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Write one manifest row for every image that the data set lists."""
    manifest, findings = _index(root, source, links=links)
    if sha256:
        from mskscreen.data.sources import with_hashes

        with progress("hashing", len(manifest)) as advance:
            manifest = with_hashes(manifest, advance)
    with needs("data"):
        manifest.write(out)
    _report(findings, all_findings)
    show([_summary(manifest, out)], form)
    if findings.refused:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def check(
    context: typer.Context,
    root: Annotated[Path, typer.Argument(help="Folder of a copy of MURA, or its manifest.")],
    lists_only: Annotated[
        bool, typer.Option("--lists-only", help="Compare the lists, not which files are there.")
    ] = False,
    links: Links = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Compare a copy of MURA with the published counts: exit code 0 exact, 3 differs."""
    from mskscreen.data.counts import compare, count, describe

    if root.is_dir():
        manifest, findings = _index(root, "mura", links=links)
        _report(findings)
    else:
        refuse_idle(context, "with a manifest", "links")
        manifest = _read(root)
    rows = [row for row in compare(count(manifest)) if not (lists_only and row.measure == "missing_files")]
    if form is Format.JSON:
        show([row._asdict() | {"difference": row.difference} for row in rows], form)
    else:
        title = "found, negative/positive/without label (difference from the published count)"
        show(_by_joint(rows), form, title=title)
    differing = [row for row in rows if row.difference]
    for sentence in describe(rows):
        err.print(sentence)
    err.print(f"{len(differing)} of {len(rows)} counts differ" if differing else "all counts are exact")
    if differing:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def audit(
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the audit.")] = Path("audit"),
    predictions: Annotated[
        list[Path] | None, typer.Option(help="Out-of-fold predictions, for label noise; repeat for more tables.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model whose joint head finds images turned by a quarter or a half.")
    ] = None,
    labels: Annotated[str, typer.Option(help="Label column to audit.")] = "label",
    workers: Workers = 0,
    form: FormatOption = Format.TABLE,
) -> None:
    """Look at every image for what usually goes wrong; writes a table and a page of thumbnails."""
    from mskscreen.data.audit import run as room
    from mskscreen.inference.engines import cores
    from mskscreen.predictions import Predictions

    joint_head, joint_head_name = joint_head_of(model) if model else (None, "")
    with needs("data"):
        tables = tuple(Predictions.read(path) for path in predictions or ())
    options = room.Options(
        joint_head=joint_head, joint_head_name=joint_head_name, predictions=tables, labels=labels
    )
    rows = _read(manifest)
    with progress("measuring", len(rows) * (2 if joint_head else 1)) as advance, needs("audit"):
        summary, done = room.audit(rows, out, options, workers=workers or cores(), advance=advance)
    if not done:
        err.print("the same audit is there already: nothing to do")
    show(summary, form, title=f"{out / 'audit.html'} shows them; candidates for a look, not verdicts")
    if any(row["flag"] == "unreadable" for row in summary):
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def overlay(
    manifest: ManifestFile,
    file: Annotated[Path, typer.Argument(help="List of images or studies with their new labels.")],
    out: Out = Path("overlay.parquet"),
    name: Annotated[str, typer.Option(help="Name of the label set: the column is label_NAME.")] = "overlay",
    rule: Annotated[
        str,
        typer.Option(
            help="What a study with both labels becomes: abnormal by any image, or by the majority (half is "
            "enough); image leaves each image its own."
        ),
    ] = "any",
    listed_as: Annotated[
        int | None, typer.Option(min=0, max=1, help="Label of lines that have none (Better-MURA: 1).")
    ] = None,
    all_findings: FindingsFile = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Add a second label set from a list; the first one and the files stay as they are."""
    from mskscreen.data import overlay as room

    if rule not in room.RULES:
        raise typer.BadParameter(f"'{rule}' is none of {', '.join(room.RULES)}", param_hint="--rule")
    result, findings, split_studies = room.overlay(
        _read(manifest), file, name=name, rule=rule, listed_as=listed_as
    )
    result.write(out)
    _report(findings, all_findings)
    for study in split_studies:
        err.print(
            f"{study.place}: a study of {study.images} images now has {study.abnormal} abnormal; "
            + ("left as it is" if study.resolved is None else f"resolved to {study.resolved}")
        )
    columns = ("label", f"label_{name}")
    show(
        [
            {"labels": column} | {str(value): list(result[column]).count(value) for value in (0, 1, None)}
            for column in columns
        ],
        form,
        title=f"{out}: images by label",
    )
    if findings.refused:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def split(
    manifest: ManifestFile,
    out: Out = Path("folds.parquet"),
    folds: Annotated[int | None, typer.Option(min=2, help="Number of folds for cross-validation.")] = None,
    development: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of images in one development fold (fold 0); 0.1 without --folds."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the assignment.")] = 0,
    labels: Annotated[str, typer.Option(help="Label column to stratify by.")] = "label",
    form: FormatOption = Format.TABLE,
) -> None:
    """Assign every patient, over all joints, to one fold; the official evaluation sets are left alone."""
    from mskscreen.data import folds as room

    if folds is not None and development is not None:
        raise typer.BadParameter("--folds and --development are two ways to split; leave out one of them")
    if folds is None and development is None:
        development = 0.1
    result = room.split(_read(manifest), folds=folds, development=development, seed=seed, labels=labels)
    result.write(out)
    show(room.proof(result, labels), form, title=f"{out}: no patient is in two parts")
    if also := result.notes["split"]["patients_also_held_out"]:
        err.print(f"{also} patients of the training set are in the evaluation set too: left out of every fold")


@app.command()
def cache(
    context: typer.Context,
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the cache.")] = Path("cache"),
    size: Annotated[int, typer.Option(min=1, help="Height and width in pixels.")] = 224,
    letterbox: Annotated[bool, typer.Option("--letterbox", help="Keep the aspect ratio.")] = False,
    preprocessing: Annotated[str | None, typer.Option(help="A whole preprocessing string instead.")] = None,
    bits: Annotated[int, typer.Option(help="8 or 16 bits a pixel.")] = 8,
    workers: Workers = 0,
    form: FormatOption = Format.TABLE,
) -> None:
    """Decode and resize every image once, into one memory-mapped array."""
    from mskscreen.data.cache import CacheContract
    from mskscreen.data.cache_build import build_cache
    from mskscreen.inference.engines import cores

    if bits not in (8, 16):
        raise typer.BadParameter(f"{bits} is neither 8 nor 16", param_hint="--bits")
    if preprocessing:
        refuse_idle(context, "with --preprocessing", "size", "letterbox")
    fit = "letterbox" if letterbox else "resize"
    string = preprocessing or f"decode|grayscale|window(auto)|{fit}({size},{size},bilinear,antialias)|unit"
    contract = CacheContract(string, f"uint{bits}")
    rows = _read(manifest)
    with progress("decoding", len(rows)) as advance:
        made, built = build_cache(rows, out, contract, workers=workers or cores(), advance=advance)
    if not built:
        err.print("the cache is whole and its sources are unchanged: nothing to do")
    failed = [row for row, entry in enumerate(made.entries) if entry.error]
    for row in failed[:20]:
        alarm.print(f"row {row} of the manifest: {made.entries[row].error}")
    size_in_gb = made.pixels.nbytes / 1e9
    show([{"cache": str(made.path), "images": len(made), "failed": len(failed), "GB": size_in_gb}], form)
    if failed:
        raise typer.Exit(Exit.SOME_FAILED)


def joint_head_of(model: str) -> tuple[JointHead, str]:
    """The joint probabilities of a model, as the audit asks for them, and the digest of its contract."""
    import numpy as np

    from mskscreen.anatomy import JointType
    from mskscreen.inference import Screener

    screener = Screener.load(model)

    def probabilities(images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([row.p_joint or (0.0,) * len(JointType) for row in screener.predict(images)])

    return probabilities, screener.engine.contract.digest


def _index(root: Path, source: str, *, links: bool) -> tuple[Manifest, Findings]:
    from mskscreen.data.sources import read_source

    with err.status("reading the lists"):
        return read_source(root, source, links=links)


def _read(path: Path) -> Manifest:
    from mskscreen.data.manifest import Manifest

    with needs("data"):
        return Manifest.read(path)


def _report(findings: Findings, file: Path | None = None) -> None:
    """Say on stderr what was found, and write all of it to `file`: lists and lines, never a patient or a label."""
    for row in findings.table():
        places = ", ".join(row["first"]) + (", ..." if row["count"] > len(row["first"]) else "")
        console, word = (alarm, "refused: ") if row["refused"] else (err, "")
        console.print(f"{word}{row['finding']}: {row['count']:,} ({places})")
    if file is not None:
        findings.write(file)


def _by_joint(rows: list[Difference]) -> list[dict[str, str]]:
    """One row a split and joint, with the counts of both labels, and of none where there are such, in one cell."""
    table: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        if row.measure.startswith("unlabelled") and not (row.found or row.published):
            continue
        cells = table.setdefault((row.split, row.joint), {"split": row.split, "joint": row.joint})
        cell = f"{row.found}" + (f" ({row.difference:+})" if row.difference else "")
        column = row.measure.split("_")[-1].replace("files", "missing")
        cells[column] = f"{cells[column]}/{cell}" if column in cells else cell
    return list(table.values())


def _summary(manifest: Manifest, out: Path) -> dict[str, object]:
    return {
        "manifest": str(out),
        "source": manifest.source,
        "images": len(manifest),
        "studies": len(set(manifest["study"]) - {None}),
        "patients": len(set(manifest["patient"]) - {None}),
        "missing_files": list(manifest["bytes"]).count(None),
        "digest": manifest.digest[:12],
    }
