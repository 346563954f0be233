"""One door for pixels: any file becomes a `Radiograph`, and a `Preprocessing` makes the input of a model of it."""

from mskscreen.pixels.geometry import Geometry
from mskscreen.pixels.limits import Limits
from mskscreen.pixels.preprocess import Preprocessing, displayed
from mskscreen.pixels.radiograph import (
    FLAG_BURNED_IN,
    FLAG_CONSTANT,
    FLAG_FOR_PROCESSING,
    FLAG_NOT_RADIOGRAPHY,
    DecodeRecord,
    Radiograph,
)
from mskscreen.pixels.read import read_radiograph
from mskscreen.pixels.reduction import Reading

__all__ = [
    "FLAG_BURNED_IN",
    "FLAG_CONSTANT",
    "FLAG_FOR_PROCESSING",
    "FLAG_NOT_RADIOGRAPHY",
    "DecodeRecord",
    "Geometry",
    "Limits",
    "Preprocessing",
    "Radiograph",
    "Reading",
    "displayed",
    "read_radiograph",
]
