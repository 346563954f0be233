"""Maps of files: one record a map, written when all that it names is written, so that a run can be killed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError
from mskscreen.evaluation.explain.explainer import TITLES, Advance, Explainer
from mskscreen.inference.screener import Screened, Screener
from mskscreen.mura_path import unlabelled
from mskscreen.pixels import FLAG_BURNED_IN, Radiograph, displayed
from mskscreen.saliency.maps import Form, MapRecord, write_values
from mskscreen.saliency.overlay import contact_sheets, draw_overlay, overlay_name, said
from mskscreen.saliency.target import Target, require_learned
from mskscreen.storage import replacing

Layout = Literal["side-by-side", "overlay"]
SHEET = "contact-sheet.png"


@dataclass(frozen=True)
class Request:
    """What to make of every image.

    `of` is a class or `joint`, the predicted one; `normal` also maps images called normal; `raw` is the form of
    the raw maps; `layout` puts the overlays of all methods on one page beside the radiograph, or one on each.
    """

    methods: tuple[str, ...] = ("hirescam",)
    of: str = "abnormal"
    at: str = "balanced"
    normal: bool = False
    raw: Form = "png"
    layout: Layout = "side-by-side"


@dataclass(frozen=True)
class Made:
    """The records of one image; `found` says that an earlier run had made them all.

    `burned_in` says that maps were drawn of a file that declares text in its pixels.
    """

    records: tuple[MapRecord, ...]
    found: bool = False
    error: str | None = None
    burned_in: bool = False


def explain_files(
    screener: Screener,
    explainer: Explainer,
    request: Request,
    files: Iterable[Path],
    folder: Path,
    advance: Advance = lambda _: None,
) -> Iterator[Made]:
    """Write overlay, raw map and record of each method for every image into `folder`, image by image.

    An image that cannot be scored gives no record and its error. `advance` counts forward passes, and for each
    image as many as it may cost at most. Raises ModelError where the model does not allow a method or did not
    learn the class.
    """
    require_learned(screener.engine.contract, _any_target(request))
    most = sum(explainer.settings.most_passes(method) for method in request.methods)
    for path in files:
        spent = 0

        def spend(passes: int) -> None:
            nonlocal spent
            spent += passes
            advance(passes)

        yield _explain_file(screener, explainer, request, path, folder, spend)
        advance(most - spent)


def _explain_file(
    screener: Screener, explainer: Explainer, request: Request, path: Path, folder: Path, advance: Advance
) -> Made:
    jobs = {method: _job(screener, explainer, request, method, path) for method in request.methods}
    stem = overlay_name(unlabelled(str(path)), str(path)).removesuffix(".png")
    places = {method: folder / f"{stem}.{method}.{request.of}.map.json" for method in request.methods}
    known = [_known(place) for place in places.values()]
    if all(record and record.job == job for record, job in zip(known, jobs.values(), strict=True)):
        return Made(tuple(record for record in known if record), found=True)
    # Not before: a finished run needs no network of a checkpoint.
    for method in request.methods:
        explainer.require(method, _any_target(request))
    folder.mkdir(parents=True, exist_ok=True)
    image = _screen(screener, path, request.at)
    row = image.prediction
    if row.error is not None or image.radiograph is None:
        return Made((), error=row.error)
    target = Target.parse(request.of, row.joint)
    draft = MapRecord(
        *(row.file, row.study, row.joint, row.p_abnormal, row.abnormal, "", target.label, ""),
        patient=row.patient,
        model=screener.describe(request.at),
        # Of those called normal too: their truth tells where abnormalities lie.
        rows=image.radiograph.values.shape[0],
        columns=image.radiograph.values.shape[1],
        orientation=image.radiograph.record.orientation,
    )
    if row.abnormal is False and not request.normal:
        draft = replace(draft, reason="called normal")
        records = [replace(draft, method=method, job=job) for method, job in jobs.items()]
    else:
        records = _maps(
            screener, explainer, request, image.radiograph, target, draft, jobs, folder / stem, advance
        )
    for record in records:
        record.write(places[record.method])
    _remove_replaced(folder, stem, request.of, known)
    drawn = any(record.overlay for record in records)
    return Made(tuple(records), burned_in=drawn and FLAG_BURNED_IN in row.flags)


def _remove_replaced(folder: Path, stem: str, of: str, replaced: Iterable[MapRecord | None]) -> None:
    """Delete the files of replaced records that no record of the image names any more, and the contact sheets.

    An overlay beside a record that says "called normal" would show what another model said, and so would a sheet.
    """
    before = _named(replaced)
    if not before:
        return
    _remove_sheets(_sheets(folder))
    now = [_known(folder / f"{stem}.{method}.{of}.map.json") for method in TITLES]
    for name in before - _named(now):
        if name.startswith(f"{stem}."):
            (folder / name).unlink(missing_ok=True)


def _named(records: Iterable[MapRecord | None]) -> set[str]:
    """The files that records name."""
    return {name for record in records if record for name in (record.map, record.overlay) if name}


def _any_target(request: Request) -> Target:
    """The class, or one of the head, where only the image tells which."""
    return Target.parse(request.of, JOINT_LABELS[0])


def write_sheets(folder: Path, records: list[MapRecord]) -> Iterator[Path]:
    """Write the overlays of all records on as many contact sheets as they fill, without any of an earlier run."""
    names = dict.fromkeys(record.overlay for record in records if record.overlay)
    paths = _sheets(folder)
    for page, path in zip(contact_sheets([folder / name for name in names]), paths, strict=False):
        with replacing(path) as partial:
            page.save(partial, compress_level=1)
        yield path
    _remove_sheets(paths)


def _sheets(folder: Path) -> Iterator[Path]:
    """The contact sheets of a folder by number, whether they are there or not."""
    return (folder / (SHEET if number == 1 else SHEET.replace(".", f"-{number}.")) for number in count(1))


def _remove_sheets(paths: Iterator[Path]) -> None:
    for path in takewhile(Path.exists, paths):
        path.unlink()


def _maps(
    screener: Screener,
    explainer: Explainer,
    request: Request,
    radiograph: Radiograph,
    target: Target,
    draft: MapRecord,
    jobs: dict[str, str],
    stem: Path,
    advance: Advance,
) -> list[MapRecord]:
    tensor = screener.preprocessing(radiograph)
    geometry = screener.preprocessing.geometry(*radiograph.values.shape)
    records, shown = [], {}
    for method, job in jobs.items():
        found = explainer(tensor, method, target, advance)
        values = geometry.map_to_source(found.values)
        path = stem.with_name(f"{stem.name}.{method}.{request.of}.{request.raw}")
        slope, intercept = write_values(path, values)
        shown[method] = values
        records.append(
            replace(
                draft,
                method=method,
                job=job,
                settings=explainer.settings.of(method),
                map=path.name,
                slope=slope,
                intercept=intercept,
                passes=found.passes,
                error=found.error,
                converged=found.converged,
            )
        )
    return [
        replace(record, overlay=name)
        for record, name in zip(records, _overlays(request, radiograph, shown, draft, stem), strict=True)
    ]


def _overlays(
    request: Request, radiograph: Radiograph, shown: dict[str, np.ndarray], draft: MapRecord, stem: Path
) -> list[str]:
    """Write the pictures and give the name of that of each method."""
    what = said(draft.joint, draft.p_abnormal, draft.abnormal)
    caption = f"{PurePath(draft.file).name}: {what} (model {draft.model['name']}), why '{draft.of}'"
    together = request.layout == "side-by-side"
    pages = [list(shown)] if together else [[method] for method in shown]
    pixels = displayed(radiograph)
    names = []
    for methods in pages:
        path = stem.with_name(f"{stem.name}.{'+'.join(methods)}.{request.of}.overlay.png")
        maps = {TITLES[method]: shown[method] for method in methods}
        picture = draw_overlay(pixels, maps, caption, of=draft.of, plain=together, spacing=radiograph.spacing)
        with replacing(path) as partial:
            picture.save(partial, compress_level=1)
        names += [path.name] * len(methods)
    return names


def _screen(screener: Screener, path: Path, at: str) -> Screened:
    seen: list[Screened] = []
    rows = list(screener.stream([path], at=at, workers=1, inspect=seen.append))
    return seen[0] if seen else Screened(rows[0])


def _known(path: Path) -> MapRecord | None:
    """The record of an earlier run; one that cannot be read, or whose map or overlay is gone, is made again."""
    try:
        record = MapRecord.read(path) if path.is_file() else None
    except DataError:
        return None
    names = [name for name in (record.map, record.overlay) if name] if record else []
    return record if all(path.with_name(name).is_file() for name in names) else None


def _job(screener: Screener, explainer: Explainer, request: Request, method: str, path: Path) -> str:
    """Digest of all that decides a map; of the image its size and time."""
    # Unlike Path.is_file it has an answer for a name that is too long, or that may not be looked up.
    status = path.stat() if os.path.isfile(path) else None  # noqa: PTH113
    parts = {
        "model": screener.describe(request.at),
        "method": method,
        "settings": explainer.settings.of(method),
        "checkpoint": explainer.checkpoint_digest if method == "integrated-gradients" else None,
        "image": status and [status.st_size, status.st_mtime_ns],
        "request": [request.methods, request.of, request.normal, request.raw, request.layout],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
