"""The kinds of data sets by name, apart from their readers, so that the command line can name them at once."""

from enum import StrEnum


class Kind(StrEnum):
    """A kind of data set; AUTO stands for the one that the folder looks like."""

    AUTO = "auto"
    MURA = "mura"
    FRACATLAS = "fracatlas"
    GRAZPEDWRI = "grazpedwri-dx"
    LERA = "lera"
    CSV = "csv"
    DICOM = "dicom"
