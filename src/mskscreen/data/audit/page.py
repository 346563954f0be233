"""One self-contained HTML page of an audit: counts, and thumbnails of what was flagged.

Paths of a data set are untrusted text: everything is escaped, and the page forbids itself scripts and any request.
"""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.data.audit.result import MEANINGS, Audit
from mskscreen.errors import MskscreenError
from mskscreen.pixels import Preprocessing, read_radiograph
from mskscreen.storage import replacing

SHOWN = 48
_SIDE = 160
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Audit of a data set</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222 }
.local { border: 2px solid #b00; padding: .5em 1em }
table { border-collapse: collapse } td, th { padding: .15em .8em; text-align: left; border-bottom: 1px solid #ddd }
.grid { display: flex; flex-wrap: wrap; gap: .8em } figure { margin: 0; width: 160px; font-size: 11px }
figure img, .none { width: 160px; height: 160px; background: #000; color: #fff; display: block }
figcaption { overflow-wrap: anywhere } .group { border: 1px solid #ccc; padding: .4em; display: flex; gap: .8em }
</style></head><body>
<h1>Audit of a data set</h1>
<p class="local"><strong>For the local user only.</strong> The page shows images of the data set with their paths,
labels and patients. Do not publish it and do not pass it on.</p>
"""
_INTRODUCTION = (
    "Flags are raised by thresholds and models and name candidates for a look by eye, not verdicts; "
    + NOT_FOR_DIAGNOSIS
)


def write_page(path: Path, audit: Audit) -> None:
    """Write the page of an audit; each flag shows at most SHOWN images."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(_parts(audit))


def _parts(audit: Audit) -> Iterator[str]:
    yield _HEAD
    yield f"<p>{len(audit.manifest):,} images, source {_text(audit.manifest.source)}. {_INTRODUCTION}.</p>"
    yield "<h2>Flags</h2>"
    yield _table(audit.summary)
    kinds = Counter(
        (m["format"], m["mode"], m["bits"]) for m in audit.measured if m["error"] is None
    ).most_common()
    yield "<h2>Formats</h2>" + _table(
        [{"format": form, "mode": mode, "bits": bits, "images": n} for (form, mode, bits), n in kinds]
    )
    thumbnails: dict[int, str] = {}
    for name, meaning in MEANINGS.items():
        rows = [row for row, names in enumerate(audit.flags) if name in names]
        if rows:
            yield f"<h2>{_text(name)}: {len(rows):,}</h2><p>{_text(meaning)}.</p>"
            yield from _section(audit, name, rows, thumbnails)
    yield "</body></html>\n"


def _section(audit: Audit, name: str, rows: Sequence[int], thumbnails: dict[int, str]) -> Iterator[str]:
    """Thumbnails of a flag: duplicates side by side, label noise worst first."""
    if name == "label-noise":
        rows = sorted(rows, key=lambda row: audit.columns["label_quality"][row])
    yield '<div class="grid">'
    if "duplicate" in name:
        for members in _groups(audit, rows)[: SHOWN // 2]:
            yield '<div class="group">'
            for row in members[:8]:
                yield _figure(audit, row, thumbnails)
            yield "</div>"
    else:
        for row in rows[:SHOWN]:
            yield _figure(audit, row, thumbnails)
    yield "</div>"
    if len(rows) > SHOWN:
        yield f"<p>The table audit.parquet lists all {len(rows):,}.</p>"


def _groups(audit: Audit, rows: Sequence[int]) -> list[list[int]]:
    """The groups of duplicates that some rows belong to, with all their members."""
    exact, near = audit.columns["exact_group"], audit.columns["near_group"]
    group = [n if n is not None else e for e, n in zip(exact, near, strict=True)]
    members: dict[int, list[int]] = {group[row]: [] for row in rows}
    for row, number in enumerate(group):
        if number in members:
            members[number].append(row)
    return list(members.values())


def _figure(audit: Audit, row: int, thumbnails: dict[int, str]) -> str:
    if row not in thumbnails:
        thumbnails[row] = _thumbnail(audit, row)
    manifest = audit.manifest
    said = [
        f"{name} {manifest[name][row]}" for name in ("joint", "label", "split") if manifest[name][row] is not None
    ]
    if turn := audit.columns.get("turn", {row: None})[row]:
        said.append(f"upright after {turn} quarter turns to the left")
    if (quality := audit.columns.get("label_quality", {row: None})[row]) is not None:
        said.append(f"probability of its label {quality:.2f}")
    if error := audit.measured[row]["error"]:
        said.append(error)
    caption = f"{_text(manifest['image'][row])}<br>{_text(', '.join(said))}"
    return f"<figure>{thumbnails[row]}<figcaption>{caption}</figcaption></figure>"


def _thumbnail(audit: Audit, row: int) -> str:
    """An image element with its pixels in it, or words where there are none."""
    try:
        radiograph = read_radiograph(audit.manifest.tree.file(audit.manifest["image"][row]))
    except MskscreenError:
        return '<span class="none">no image</span>'
    shown = Preprocessing(_SIDE, _SIDE, fit="letterbox")(radiograph)[0]
    image = Image.fromarray(np.rint(shown * 255).astype(np.uint8))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{_text(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: object) -> str:
    # Lone surrogates, from file names that are not UTF-8, cannot be written.
    return html.escape(str(value).encode("utf-8", "replace").decode())
