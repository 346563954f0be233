"""The compiled loops of the projector: rays through density volumes and through analytic solids.

A ray takes one bilinear sample in every slice of the volume's axis that lies closest to the beam: as exact as
trilinear samples one voxel apart, with half the reads. Blocks without bone are skipped. `forms` and `settings` are
the clips and edits of a bone as `projector` lays them out, or None.
"""

from __future__ import annotations

import numpy as np

from mskscreen.phantom.compiled import compiled
from mskscreen.phantom.levels import BLOCK, FULL

ROUGHEST = 4.0  # standard deviations of the surface noise that a clip reckons with
_WIDEST = 1.7  # radii of an edit, its irregularity and soft edge included
_BONE = 0.01 * FULL  # less than any marrow between trabeculae: outside the bone
_NOISE_STEP = 0.15e-3  # metres between samples of the surface noise
_TO_BLOCK = 16 + BLOCK.bit_length() - 1


@compiled
def cover(spans, points, projection, edges, columns):  # type: ignore[no-untyped-def]
    """Widen the spans by the blocks around projected points; `edges` are half a block's edges, projected."""
    for n in range(points.shape[0]):
        u, v, w = projection[:, 3]
        for axis in range(3):
            u += projection[0, axis] * points[n, axis]
            v += projection[1, axis] * points[n, axis]
            w += projection[2, axis] * points[n, axis]
        u, v, wide, high, deep = u / w, v / w, 0.0, 0.0, 0.0
        for axis in range(3):
            wide += abs(edges[0, axis] - u * edges[2, axis])
            high += abs(edges[1, axis] - v * edges[2, axis])
            deep += abs(edges[2, axis])
        wide, high = wide / (w - deep), high / (w - deep)
        first, last = max(int(np.ceil(u - wide)), 0), min(int(np.floor(u + wide)) + 1, columns)
        if last <= first:
            continue
        for row in range(max(int(np.ceil(v - high)), 0), min(int(np.floor(v + high)) + 1, spans.shape[0])):
            spans[row, 0] = min(spans[row, 0], first)
            spans[row, 1] = max(spans[row, 1], last)


@compiled
def _noise_at(noise, u, v):  # type: ignore[no-untyped-def]
    last = noise.shape[0] - 1  # a power of two is the period, so its bits wrap
    i, j = int(np.floor(u)), int(np.floor(v))
    fu, fv = u - i, v - j
    i1, j1 = (i + 1) & last, (j + 1) & last
    i, j = i & last, j & last
    return (noise[i, j] * (1 - fu) + noise[i1, j] * fu) * (1 - fv) + (
        noise[i, j1] * (1 - fu) + noise[i1, j1] * fu
    ) * fv


@compiled
def _form(form, a, b, c):  # type: ignore[no-untyped-def]
    return form[0] * a + form[1] * b + form[2] * c + form[3]


@compiled
def _slab(form, low, high, ray, first, last):  # type: ignore[no-untyped-def]
    """The slices from `first` to `last` where `form` lies between `low` and `high` on a ray."""
    start = form[1] * ray[0] / 65536.0 + form[2] * ray[1] / 65536.0 + form[3] - low
    slope = form[0] + form[1] * ray[2] / 65536.0 + form[2] * ray[3] / 65536.0
    return _inside(start, slope, high - low, first, last)


@compiled
def _kept(forms, settings, pitch, ray, first, last):  # type: ignore[no-untyped-def]
    """The slices from `first` to `last` that no clip removes whole."""
    for n in range(forms.shape[0]):
        if settings[n, 0] == 0.0:
            margin = ROUGHEST * settings[n, 2] + pitch
            low, high = (-margin, 1e9) if settings[n, 1] > 0.0 else (-1e9, margin)
            first, last = _slab(forms[n, 0], low, high, ray, first, last)
    return first, last


@compiled
def _touched(forms, settings, pitch, ray, first, last):  # type: ignore[no-untyped-def]
    """From the first to the last slice where any clip or edit can change a sample."""
    start, stop = last + 1.0, first - 1.0
    for n in range(forms.shape[0]):
        near, far = first, last
        if settings[n, 0] == 0.0:
            reach = ROUGHEST * settings[n, 2] + pitch
            near, far = _slab(forms[n, 0], -reach, reach, ray, near, far)
        else:
            reach = _WIDEST + settings[n, 2]
            for axis in range(3):
                near, far = _slab(forms[n, axis], -reach, reach, ray, near, far)
        if near <= far:
            start, stop = min(start, near), max(stop, far)
    return int(np.floor(start)), int(np.ceil(stop))


@compiled
def _edited(value, position, forms, settings, pitch, noise):  # type: ignore[no-untyped-def]
    """A sample's density after every clip and edit; edges are one voxel soft, so that they do not alias."""
    a, b, c = position
    for n in range(forms.shape[0]):
        p = _form(forms[n, 0], a, b, c)
        if settings[n, 0] == 0.0:
            roughness = settings[n, 2]
            if roughness > 0.0 and abs(p) < ROUGHEST * roughness + pitch:
                q, r = _form(forms[n, 1], a, b, c), _form(forms[n, 2], a, b, c)
                shift = 37.0 * settings[n, 3]
                p += roughness * _noise_at(noise, q / _NOISE_STEP + shift, r / _NOISE_STEP + 0.7 * shift)
            value *= min(max(settings[n, 1] * p / pitch + 0.5, 0.0), 1.0)
        else:
            q, r = _form(forms[n, 1], a, b, c), _form(forms[n, 2], a, b, c)
            radius = np.sqrt(p * p + q * q + r * r)
            if radius > _WIDEST + settings[n, 2]:
                continue
            shift = 37.0 * settings[n, 4]
            bump = 0.2 * settings[n, 3] * _noise_at(noise, 16.0 * p + 9.0 * r + shift, 16.0 * q - 9.0 * r + shift)
            radius += min(max(bump, -0.5), 0.5)
            inside = min(max((1.0 - radius) * 6.0 + 0.5, 0.0), 1.0)
            gain = settings[n, 1]
            # Sclerosis fills marrow too, where there is little to multiply.
            changed = value * gain + (0.25 * FULL * (gain - 1.0) if gain > 1.0 and value > _BONE else 0.0)
            shell = min(max((1.0 + settings[n, 2] - radius) * 6.0 + 0.5, 0.0), 1.0) * (1.0 - inside)
            if settings[n, 2] > 0.0 and value > _BONE:
                value += shell * (0.3 * value + 0.22 * FULL)
            value = min(value + inside * (changed - value), 255.0)
    return value


@compiled
def _inside(start, slope, size, first, last):  # type: ignore[no-untyped-def]
    """The part of slices `first` to `last` where start + slope * slice stays within 0 and `size`."""
    if abs(slope) < 1e-12:
        return (first, last) if 0.0 <= start <= size else (1.0, 0.0)
    near, far = -start / slope, (size - start) / slope
    return max(first, min(near, far)), min(last, max(near, far))


@compiled
def _sum(density, layout, first, last, ray, forms, settings, pitch, noise):  # type: ignore[no-untyped-def]
    """Sum of the bilinear samples of slices `first` to `last`.

    A ray is its position in slice 0 and its step per slice across the other two axes, in fixed point with 16 bits
    of fraction: whole and fractional parts come without conversions.
    """
    # Unsigned indices spare the test for negative ones, which would take most of the time.
    right, below, across = np.uintp(layout[4]), np.uintp(layout[5]), np.uintp(layout[4] + layout[5])
    b, c = ray[0] + first * ray[2], ray[1] + first * ray[3]
    plain, total = 0, 0.0
    for n in range(first, last + 1):
        at = np.uintp(n * layout[3] + (b >> 16) * layout[4] + (c >> 16) * layout[5])
        fb, fc = (b >> 8) & 255, (c >> 8) & 255
        near, far = np.int64(density[at]), np.int64(density[at + below])
        low = (near << 8) + (np.int64(density[at + right]) - near) * fb
        high = (far << 8) + (np.int64(density[at + across]) - far) * fb
        value = (low << 8) + (high - low) * fc
        if forms is None:
            plain += value
        elif value > 0:
            total += _edited(value / 65536.0, (n, b / 65536.0, c / 65536.0), forms, settings, pitch, noise)
        b += ray[2]
        c += ray[3]
    return total + plain / 65536.0


@compiled
def _run(density, layout, first, last, touched, ray, forms, settings, pitch, noise):  # type: ignore[no-untyped-def]
    """Sum over slices `first` to `last`, at full speed where no clip and no edit reaches."""
    if forms is None:
        return _sum(density, layout, first, last, ray, None, None, pitch, noise)
    start, stop = max(first, touched[0]), min(last, touched[1])
    if start > stop:
        return _sum(density, layout, first, last, ray, None, None, pitch, noise)
    total = _sum(density, layout, first, start - 1, ray, None, None, pitch, noise)
    total += _sum(density, layout, start, stop, ray, forms, settings, pitch, noise)
    return total + _sum(density, layout, stop + 1, last, ray, None, None, pitch, noise)


@compiled
def cast_volume(  # type: ignore[no-untyped-def]
    path, density, leaps, layout, block_layout, source, steps, beam, spans, gain, forms, settings, pitch, noise
):
    """Add the metres of solid bone along every ray of the `spans`.

    `density` and `leaps` are flat, with sizes and strides in the layouts, the slices' axis first; `leaps` is how
    many blocks from one on a ray passes without meeting bone, or with minus how many may all hold some. `source`
    is the focal spot and `steps` the ray of pixel (0, 0) and its change per column and row, in voxels; `beam` are
    the same rays in metres.
    """
    for y in range(path.shape[0]):
        for x in range(spans[y, 0], spans[y, 1]):
            ga = steps[0, 0] + x * steps[1, 0] + y * steps[2, 0]
            if ga == 0.0:
                continue
            db = (steps[0, 1] + x * steps[1, 1] + y * steps[2, 1]) / ga
            dc = (steps[0, 2] + x * steps[1, 2] + y * steps[2, 2]) / ga
            b = source[1] - source[0] * db
            c = source[2] - source[0] * dc
            # The margin holds what fixed point loses over a thousand slices.
            first, last = _inside(b - 0.02, db, layout[1] - 1.04, 0.0, layout[0] - 1.0)
            first, last = _inside(c - 0.02, dc, layout[2] - 1.04, first, last)
            ray = (int(b * 65536.0), int(c * 65536.0), int(np.rint(db * 65536.0)), int(np.rint(dc * 65536.0)))
            touched = (0, 0)
            if forms is not None:
                first, last = _kept(forms, settings, pitch, ray, first, last)
                touched = _touched(forms, settings, pitch, ray, first, last)
            if last < first:
                continue
            n, end, total = int(np.ceil(first)), int(np.floor(last)), 0.0
            start = n
            while n <= end:
                # A ray drifts less than half a block in BLOCK slices, and a block also answers for its neighbours.
                stop = min(end, n | (BLOCK - 1))
                middle = (n + stop) >> 1
                right = (ray[0] + middle * ray[2]) >> _TO_BLOCK
                below = (ray[1] + middle * ray[3]) >> _TO_BLOCK
                at = n // BLOCK * block_layout[3] + right * block_layout[4] + below * block_layout[5]
                leap = int(leaps[np.uintp(at)])
                if leap < 0:
                    n = (n // BLOCK - leap) * BLOCK
                    continue
                if n > start:
                    total += _run(density, layout, start, n - 1, touched, ray, forms, settings, pitch, noise)
                start = n = (n // BLOCK + leap) * BLOCK
            if start <= end:
                total += _run(density, layout, start, end, touched, ray, forms, settings, pitch, noise)
            if total > 0.0:
                wx = beam[0, 0] + x * beam[1, 0] + y * beam[2, 0]
                wy = beam[0, 1] + x * beam[1, 1] + y * beam[2, 1]
                wz = beam[0, 2] + x * beam[1, 2] + y * beam[2, 2]
                path[y, x] += total * gain * np.sqrt(wx * wx + wy * wy + wz * wz) / abs(ga)


@compiled
def _quadratic(a, b, c):  # type: ignore[no-untyped-def]
    """Interval where a t^2 + 2 b t + c is negative, for a >= 0."""
    if a < 1e-18:
        return (-1e9, 1e9) if c < 0.0 else (1.0, -1.0)
    root = b * b - a * c
    if root <= 0.0:
        return 1.0, -1.0
    root = np.sqrt(root)
    return (-b - root) / a, (root - b) / a


@compiled
def cast_analytic(path, kind, start, steps, beam):  # type: ignore[no-untyped-def]
    """Lengths inside the unit cube (kind 0), cylinder (1) or sphere (2); `start` and `steps` are in its units.

    Pixels are sampled 2 x 2, except well inside a sphere, where nothing needs antialiasing.
    """
    square = start[0] ** 2 + start[1] ** 2 + start[2] ** 2
    size = 0.0
    for axis in range(3):
        size += abs(steps[1, axis]) + abs(steps[2, axis])
    outer = (np.sqrt(3.0 - kind) + size) ** 2
    inner = max(1.0 - 2.0 * size, 0.0) ** 2 if kind == 2 else -1.0
    for y in range(path.shape[0]):
        for x in range(path.shape[1]):
            d0 = steps[0, 0] + x * steps[1, 0] + y * steps[2, 0]
            d1 = steps[0, 1] + x * steps[1, 1] + y * steps[2, 1]
            d2 = steps[0, 2] + x * steps[1, 2] + y * steps[2, 2]
            along = start[0] * d0 + start[1] * d1 + start[2] * d2
            # How far the ray passes from the middle, squared.
            away = square - along * along / (d0 * d0 + d1 * d1 + d2 * d2)
            if away > outer:
                continue
            samples, aside = (1, 0.0) if away < inner else (4, 0.25)
            total = 0.0
            for corner in range(samples):
                u = x + (aside if corner & 1 else -aside)
                v = y + (aside if corner & 2 else -aside)
                d0 = steps[0, 0] + u * steps[1, 0] + v * steps[2, 0]
                d1 = steps[0, 1] + u * steps[1, 1] + v * steps[2, 1]
                d2 = steps[0, 2] + u * steps[1, 2] + v * steps[2, 2]
                a, b, c = d0 * d0 + d1 * d1, start[0] * d0 + start[1] * d1, start[0] ** 2 + start[1] ** 2 - 1.0
                if kind == 2:
                    near, far = _quadratic(a + d2 * d2, b + start[2] * d2, c + start[2] ** 2)
                else:
                    near, far = _inside(start[2] + 1.0, d2, 2.0, -1e9, 1e9)
                    if kind == 1:
                        low, high = _quadratic(a, b, c)
                        near, far = max(near, low), min(far, high)
                    else:
                        near, far = _inside(start[0] + 1.0, d0, 2.0, near, far)
                        near, far = _inside(start[1] + 1.0, d1, 2.0, near, far)
                if far > near:
                    total += far - near
            if total > 0.0:
                wx = beam[0, 0] + x * beam[1, 0] + y * beam[2, 0]
                wy = beam[0, 1] + x * beam[1, 1] + y * beam[2, 1]
                wz = beam[0, 2] + x * beam[1, 2] + y * beam[2, 2]
                path[y, x] = total / samples * np.sqrt(wx * wx + wy * wy + wz * wz)
