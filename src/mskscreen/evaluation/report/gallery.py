"""The worst errors: the most confident false negatives and false positives, with pictures only where asked for."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import MskscreenError
from mskscreen.evaluation.assess import Assessment, worst_errors
from mskscreen.evaluation.cases import VIEW_COUNT
from mskscreen.evaluation.report.markup import Markup, tag
from mskscreen.evaluation.report.tables import sentence
from mskscreen.evaluation.repredict import find_image

SHOWN = 6
_PIXELS = 300
_SHOWN_ALWAYS = ("joint", VIEW_COUNT)
_VIEWS = 3


@dataclass(frozen=True)
class Pictures:
    """Folders to take pictures from: `images` with radiographs, `maps` with overlays of `predict --maps`."""

    images: Path | None = None
    maps: Path | None = None


def gallery(a: Assessment, pictures: Pictures) -> list[Markup]:
    """The false negatives with the lowest and the false positives with the highest probability."""
    if a.cases.table.silent:
        return [tag("p", sentence(a.cases.table.no_scores))]
    parts = []
    for title, rows in worst_errors(a).items():
        shown = [_case(a, int(i), pictures) for i in rows[:SHOWN]]
        parts.append(tag("h3", f"{title.capitalize()}, most confident first ({len(shown)} of {len(rows)})"))
        parts.append(tag("div", *shown, class_="gallery") if shown else tag("p", "None."))
    return parts


def _case(a: Assessment, i: int, pictures: Pictures) -> Markup:
    cases = a.cases
    rows = cases.rows[cases.offsets[i] : cases.offsets[i + 1]].tolist()
    joint = JOINT_LABELS[cases.joint[i]] if cases.joint[i] >= 0 else "unknown joint"
    p_joint = cases.p_joint[i]
    called = JOINT_LABELS[int(p_joint.argmax())] if np.isfinite(p_joint).all() else "not predicted"
    views = ", ".join(f"{value:.2f}" for value in a.p_view[rows])
    return tag(
        "div",
        tag("b", str(cases.keys[i])),
        tag("div", f"p(abnormal) {cases.p[i]:.3f} (by view: {views})"),
        tag("div", f"joint {joint}, predicted {called}"),
        [tag("div", f"{name}: {cases.columns[name][i]}") for name in a.study.groups if name not in _SHOWN_ALWAYS],
        [_picture(cases.table.file[row], pictures) for row in rows[:_VIEWS]],
        class_="case",
    )


def _picture(file: str, pictures: Pictures) -> Markup | None:
    """The overlay of an image, which shows the radiograph and the map side by side, else the radiograph."""
    if pictures.maps:
        from mskscreen.mura_path import unlabelled
        from mskscreen.saliency.overlay import overlay_name

        overlay = pictures.maps / overlay_name(unlabelled(file), file)
        data = _thumbnail(overlay, overlay=True) if overlay.is_file() else None
        if data is not None:
            return _image(data, "radiograph and evidence map")
    if not pictures.images:
        return None
    path = find_image(pictures.images, file)
    data = _thumbnail(path) if path else None
    if data is None:
        return tag("small", f"no picture: {'not below the folder given' if path is None else 'cannot be read'}")
    return _image(data, "radiograph")


def _image(data: bytes, what: str) -> Markup:
    return tag("img", src=f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", alt=what, loading="lazy")


def _thumbnail(path: Path, *, overlay: bool = False) -> bytes | None:
    """JPEG of at most 300 pixels a side, without metadata; None where the file cannot be read."""
    from PIL import Image

    from mskscreen.pixels import displayed, read_radiograph

    try:
        if overlay:
            image = Image.open(path).convert("RGB")
        else:
            image = Image.fromarray(np.round(displayed(read_radiograph(path)) * 255).astype(np.uint8))
        image.thumbnail((_PIXELS, _PIXELS))
    except (MskscreenError, OSError, ValueError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()
