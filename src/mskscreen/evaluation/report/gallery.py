"""The worst errors: the most confident false negatives and false positives, with pictures only where asked for."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import MskscreenError
from mskscreen.evaluation.cases import Cases
from mskscreen.evaluation.disturb import find_image
from mskscreen.evaluation.report.markup import Markup, tag

SHOWN = 6
_PIXELS = 240
_VIEWS = 3


@dataclass(frozen=True)
class Pictures:
    """Folders to take pictures from: `images` with radiographs, `maps` with overlays of `predict --maps`."""

    images: Path | None = None
    maps: Path | None = None


def gallery(cases: Cases, threshold: float, pictures: Pictures) -> list[Markup]:
    """The false negatives with the lowest and the false positives with the highest probability."""
    calls = cases.p >= threshold
    missed = np.flatnonzero(cases.labels & ~calls)
    alarms = np.flatnonzero(~cases.labels & calls)
    parts = []
    for title, rows in (
        ("False negatives, most confident first", missed[np.argsort(cases.p[missed], kind="stable")]),
        ("False positives, most confident first", alarms[np.argsort(-cases.p[alarms], kind="stable")]),
    ):
        shown = [_case(cases, int(i), pictures) for i in rows[:SHOWN]]
        parts.append(tag("h3", f"{title} ({len(shown)} of {len(rows)})"))
        parts.append(tag("div", *shown, class_="gallery") if shown else tag("p", "None."))
    return parts


def _case(cases: Cases, i: int, pictures: Pictures) -> Markup:
    rows = cases.rows[cases.offsets[i] : cases.offsets[i + 1]].tolist()
    joint = JOINT_LABELS[cases.joint[i]] if cases.joint[i] >= 0 else "unknown joint"
    p_joint = cases.p_joint[i]
    called = JOINT_LABELS[int(p_joint.argmax())] if np.isfinite(p_joint).all() else "not predicted"
    views = ", ".join(f"{value:.2f}" for value in cases.table.p_abnormal[rows])
    return tag(
        "div",
        tag("b", str(cases.keys[i])),
        tag("div", f"p(abnormal) {cases.p[i]:.3f} (by view: {views})"),
        tag("div", f"joint {joint}, predicted {called}"),
        [picture for row in rows[:_VIEWS] for picture in _pictures(cases.table.file[row], pictures)],
        class_="case",
    )


def _pictures(file: str, pictures: Pictures) -> Iterator[Markup]:
    if pictures.images:
        path = find_image(pictures.images, file)
        data = _thumbnail(path) if path else None
        if data is None:
            yield tag("small", f"no picture: {'not below the folder given' if path is None else 'cannot be read'}")
        else:
            yield _image(data, "radiograph")
    if pictures.maps:
        from mskscreen.mura_path import unlabelled
        from mskscreen.saliency.overlay import overlay_name

        overlay = pictures.maps / overlay_name(unlabelled(file), file)
        data = _thumbnail(overlay, overlay=True) if overlay.is_file() else None
        if data is not None:
            yield _image(data, "evidence map")


def _image(data: bytes, what: str) -> Markup:
    return tag("img", src=f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", alt=what, loading="lazy")


def _thumbnail(path: Path, *, overlay: bool = False) -> bytes | None:
    """JPEG of at most 240 pixels a side, without metadata; None where the file cannot be read."""
    from PIL import Image

    from mskscreen.pixels import read_radiograph

    try:
        if overlay:
            image = Image.open(path).convert("RGB")
        else:
            image = Image.fromarray(np.round(read_radiograph(path).pixels * 255).astype(np.uint8))
        image.thumbnail((_PIXELS, _PIXELS))
    except (MskscreenError, OSError, ValueError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
