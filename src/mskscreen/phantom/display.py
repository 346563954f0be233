"""From detected intensity to the picture a reader sees: the processing families of CR, DR and film."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mskscreen.phantom.filters import bend, blur, low_pass

_SPARSE = (slice(None, None, 3), slice(None, None, 3))


class Family(StrEnum):
    """How a department's images look."""

    DETAIL = "detail"
    FLAT = "flat"
    FILM = "film"


@dataclass(frozen=True)
class DisplayStyle:
    """Parameters of display processing, applied to the logarithm of the intensity.

    `equalise` in [0, 1) is the share of the low frequencies removed, `base` their standard deviation as a share of
    the long side; more is removed where they would span more than `latitude` (natural logarithms; infinite for
    film), as processing does for a shoulder. `structure` is the gain of what is smaller than 1.2 % of the long
    side, `detail` that of what is below `detail_size` pixels. `black` and `white` are the percentiles of the
    exposed anatomy that the window spans, widened downwards by `air` of its width; `slope` and `shoulder` shape
    the sigmoid (0 is linear); the result spans `floor` to `ceiling`.
    """

    family: Family
    equalise: float = 0.3
    base: float = 0.05
    latitude: float = 0.9
    structure: float = 0.2
    detail: float = 0.4
    detail_size: float = 1.8
    black: float = 5.0
    white: float = 99.5
    air: float = 0.1
    slope: float = 3.4
    shoulder: float = 0.5
    gamma: float = 1.0
    floor: float = 0.0
    ceiling: float = 0.95
    grain: float = 0.0


def sample_style(rng: np.random.Generator) -> DisplayStyle:
    """A style drawn from the three families: detail-enhanced CR, flat archive-like DR, film."""
    u = rng.uniform
    family = (Family.DETAIL, Family.FLAT, Family.FILM)[int(rng.choice(3, p=[0.45, 0.35, 0.2]))]
    if family is Family.DETAIL:
        return DisplayStyle(
            family,
            equalise=u(0.1, 0.55),
            base=u(0.03, 0.07),
            latitude=u(0.5, 1.2),
            structure=u(0.0, 0.6),
            detail=u(0.1, 0.9),
            detail_size=u(1.0, 2.5),
            black=u(1.0, 15),
            white=u(98.5, 99.8),
            air=u(-0.1, 0.2),
            slope=u(2.6, 4.2),
            shoulder=u(0.45, 0.6),
            ceiling=u(0.85, 1.0),
        )
    if family is Family.FLAT:
        floor = u(0.02, 0.22)
        return DisplayStyle(
            family,
            equalise=u(0.0, 0.25),
            base=u(0.03, 0.07),
            latitude=u(0.8, 1.8),
            structure=u(0.0, 0.3),
            detail=u(0.0, 0.6),
            detail_size=u(1.0, 2.0),
            black=u(0.5, 3),
            white=99.7,
            air=u(0.0, 0.3),
            slope=0.0,
            gamma=u(0.7, 1.5),
            floor=floor,
            ceiling=min(1.0, floor + u(0.3, 0.8)),
        )
    return DisplayStyle(
        family,
        equalise=0.0,
        latitude=np.inf,
        structure=0.0,
        detail=0.0,
        black=u(2, 20),
        white=u(99.0, 99.8),
        air=u(0.0, 0.3),
        slope=u(3.5, 6.0),
        shoulder=u(0.4, 0.62),
        floor=u(0.0, 0.06),
        ceiling=u(0.85, 1.0),
        grain=u(0.004, 0.015),
    )


def process(
    intensity: np.ndarray, style: DisplayStyle, rng: np.random.Generator, field: np.ndarray | None = None
) -> np.ndarray:
    """The displayed image (rows, columns) float32 in [0, 1], bone bright.

    `intensity` is relative to the open beam. Statistics come from where `field` (rows, columns), the exposed area,
    exceeds one half; blackening what lies outside is left to the collimator, after this, or its edges would ring.
    """
    signal = np.maximum(intensity, np.float32(2e-4))
    np.negative(np.log(signal, out=signal), out=signal)
    anatomy = _anatomy(signal, field)
    shown = signal.copy()
    if np.isfinite(style.latitude):
        base = low_pass(signal, style.base * max(signal.shape))
        low, high = np.percentile(base[_SPARSE][anatomy], [5, 95])
        base *= np.float32(max(style.equalise, 1 - style.latitude / max(high - low, 1e-3)))
        shown -= base
    if style.structure > 0:
        _sharpen(shown, signal, low_pass(signal, 0.012 * max(signal.shape)), style.structure)
    if style.detail > 0:
        _sharpen(shown, signal, blur(signal, style.detail_size), style.detail)
    low, high = np.percentile(shown[_SPARSE][anatomy], [style.black, style.white])
    low -= style.air * (high - low)
    shown -= np.float32(low)
    shown /= np.float32(max(high - low, 1e-3))
    image = _tone(shown, style)
    image *= style.ceiling - style.floor
    image += style.floor
    if style.grain > 0:
        image += np.float32(style.grain) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0, 1, out=image)


def _sharpen(shown: np.ndarray, signal: np.ndarray, smooth: np.ndarray, gain: float) -> None:
    """Add to `shown` what `smooth`, which is used up, lacks of `signal`, times `gain`."""
    np.subtract(signal, smooth, out=smooth)
    smooth *= np.float32(gain)
    shown += smooth


def _anatomy(signal: np.ndarray, field: np.ndarray | None) -> np.ndarray:
    """Which of every third pixel attenuate clearly more than the open beam; the whole field if hardly any."""
    sparse = signal[_SPARSE]
    exposed = np.ones(sparse.shape, bool) if field is None else field[_SPARSE] > 0.5
    if not exposed.any():
        exposed = np.ones(sparse.shape, bool)
    # A field full of tissue shows no open beam to compare with.
    beam = min(float(np.percentile(sparse[exposed], 2)), 0.1)
    anatomy = exposed & (sparse > beam + 0.12)
    return anatomy if anatomy.sum() > 200 else exposed


def _tone(position: np.ndarray, style: DisplayStyle) -> np.ndarray:
    """Tone curve from window position, in place, to [0, 1]: a power, or a sigmoid scaled to meet 0 and 1 at the
    limits.
    """
    if style.slope <= 0:
        bend(position, np.float32(style.gamma))
        return position
    ends = 1 / (1 + np.exp(-style.slope * (np.array([0.0, 1.0]) - style.shoulder)))
    curve = np.clip(position, -1, 2, out=position)
    curve -= np.float32(style.shoulder)
    curve *= np.float32(-style.slope)
    np.exp(curve, out=curve)
    curve += 1
    np.reciprocal(curve, out=curve)
    curve -= np.float32(ends[0])
    curve /= np.float32(ends[1] - ends[0])
    return np.clip(curve, 0, 1, out=curve)
