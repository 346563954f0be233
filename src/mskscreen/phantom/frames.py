"""Rigid motions and frames as 4x4 matrices, lengths in metres, angles in radians."""

from __future__ import annotations

import math

import numpy as np

from mskscreen.phantom.skeleton import UNMOVED, UNTURNED, rotation

Vector = np.ndarray
Matrix = np.ndarray


def unit(vector: Vector) -> Vector:
    """The vector scaled to length one."""
    return np.asarray(vector, float) / math.sqrt(vector @ vector)


def cross(a: Vector, b: Vector) -> Vector:
    """Vector product of two vectors of three; ten times as fast as `numpy.cross` for one pair."""
    (ax, ay, az), (bx, by, bz) = a, b
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def across(vector: Vector, axis: Vector) -> Vector:
    """The unit vector of what is left of `vector` perpendicular to the unit vector `axis`."""
    return unit(vector - axis * (vector @ axis))


def place(origin: Vector, axes: Matrix | None = None) -> Matrix:
    """The transform that puts local coordinates at `origin`, turned by `axes`."""
    matrix = UNMOVED.copy()
    matrix[:3, 3] = origin
    if axes is not None:
        matrix[:3, :3] = axes
    return matrix


def motion(pivot: Vector, shift: Vector, axis: Vector | None = None, angle: float = 0.0) -> Matrix:
    """Rotation by `angle` about `axis` through `pivot`, then `shift`."""
    about = UNTURNED if axis is None else rotation(axis, angle)
    return place(pivot - about @ pivot + shift, about)


def along(z: Vector, x: Vector) -> Matrix:
    """Right-handed rotation whose third column is `z` and whose first lies towards `x`."""
    third = unit(z)
    if abs(third @ unit(x)) > 1 - 1e-9:
        x = np.roll(third, 1) + 0.1
    first = across(x, third)
    return np.array([first, cross(third, first), third]).T


def moved(matrix: Matrix, point: Vector) -> Vector:
    """A point, or points (n, 3), taken through a transform."""
    return np.asarray(point) @ matrix[:3, :3].T + matrix[:3, 3]
