"""The predictions table: one row per image, and the one function that derives study rows from it.

`predict` writes this table; evaluation, comparison, calibration, reports and DICOM objects read it.
"""

from mskscreen.predictions.formats import FORMATS, is_table, read_images, render, row_of, table_format, write_table
from mskscreen.predictions.rows import (
    FLAG_CONFLICT,
    FLAG_ERROR,
    FLAG_LOW_CONFIDENCE,
    FLAG_MIXED_JOINTS,
    FLAG_NOVEL,
    FLAG_UNAPPROVED,
    Prediction,
    require_finite,
    score,
    softmax,
    threshold,
)
from mskscreen.predictions.study import JointTally, StudyPrediction, studies
from mskscreen.predictions.table import Predictions, threshold_of

__all__ = [
    "FLAG_CONFLICT",
    "FLAG_ERROR",
    "FLAG_LOW_CONFIDENCE",
    "FLAG_MIXED_JOINTS",
    "FLAG_NOVEL",
    "FLAG_UNAPPROVED",
    "FORMATS",
    "JointTally",
    "Prediction",
    "Predictions",
    "StudyPrediction",
    "is_table",
    "read_images",
    "render",
    "require_finite",
    "row_of",
    "score",
    "softmax",
    "studies",
    "table_format",
    "threshold",
    "threshold_of",
    "write_table",
]
