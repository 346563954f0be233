"""Learning curves as a picture: losses on the left, development figures on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mskscreen.storage import replacing

_WIDTH, _HEIGHT = 520, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 56, 40
_PANELS = {
    "loss": {"loss": "#1f5fa8", "dev_loss": "#c2571a"},
    "development fold": {
        "abnormality_auroc": "#1f5fa8",
        "abnormality_accuracy": "#7fa6d2",
        "joint_auroc": "#2c7a3f",
        "joint_accuracy": "#8fc29c",
    },
}
_TITLES = {"loss": "training loss", "dev_loss": "development loss"}
_GREY, _BLACK = "#b8b8b8", "#202020"


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the curves of a run as PNG; `history` holds one row an epoch, as metrics.csv does."""
    image = Image.new("RGB", (_WIDTH * len(_PANELS), _HEIGHT), "white")
    for number, (title, colours) in enumerate(_PANELS.items()):
        curves = {name: [row[name] for row in history] for name in colours if name in history[0]}
        _panel(ImageDraw.Draw(image), number * _WIDTH, title, curves, colours)
    with replacing(path) as partial:
        image.save(partial)


def _panel(
    draw: ImageDraw.ImageDraw,
    left: int,
    title: str,
    curves: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
) -> None:
    font = ImageFont.load_default(12)
    values = [value for curve in curves.values() for value in curve]
    low, high = min(values), max(values)
    if high - low < 1e-3:
        low, high = low - 0.01, high + 0.01
    epochs = len(next(iter(curves.values())))
    x0, x1 = left + _LEFT, left + _WIDTH - _RIGHT
    y0, y1 = _HEIGHT - _BOTTOM, _TOP

    def place(epoch: float, value: float) -> tuple[float, float]:
        return x0 + (x1 - x0) * (epoch - 1) / max(1, epochs - 1), y0 + (y1 - y0) * (value - low) / (high - low)

    for tick in range(5):
        value = low + (high - low) * tick / 4
        _, y = place(1, value)
        draw.line((x0, y, x1, y), fill=_GREY)
        draw.text((x0 - 6, y), f"{value:.3f}", _BLACK, font, anchor="rm")
    for epoch in sorted({1 + round((epochs - 1) * share / 4) for share in range(5)}):
        x, _ = place(epoch, low)
        draw.text((x, y0 + 6), str(epoch), _BLACK, font, anchor="ma")
    draw.text(((x0 + x1) / 2, _HEIGHT - 4), "epoch", _BLACK, font, anchor="md")
    draw.text((x0, 8), title, _BLACK, ImageFont.load_default(14))
    x = float(x0)
    for name, curve in curves.items():
        points = [place(epoch, value) for epoch, value in enumerate(curve, 1)]
        draw.line(points, fill=colours[name], width=2)
        for point in points if len(points) < 40 else ():
            draw.circle(point, 2.5, fill=colours[name])
        label = _TITLES.get(name, name.replace("_", " ").replace("auroc", "AUROC"))
        draw.text((x, 30), label, colours[name], font)
        x += draw.textlength(label, font) + 14
