"""The exceptions of mskscreen: each message is one sentence that names the file, the field and the remedy.

`one_line` makes text with names of files fit to be shown, `short` what an untrusted file holds fit to be quoted.
"""

from __future__ import annotations

from collections.abc import Mapping


class MskscreenError(Exception):
    """Base of every error that mskscreen raises on purpose; its text is fit to be shown to a user."""


class DecodeError(MskscreenError):
    """A file could not be turned into a radiograph: unreadable, unsupported, or past a limit.

    `dicom` holds the identifiers of a DICOM image whose header could be read, as in its `DecodeRecord`, so that it
    still counts as part of its study.
    """

    dicom: Mapping[str, str] | None = None

    @classmethod
    def corrupt(cls, name: str, error: Exception) -> DecodeError:
        """Say that a decoder failed: the kind of `error`, never its text, which may quote the patient."""
        return cls(f"{name}: the file is truncated or corrupt ({type(error).__name__}); export it again")


class LimitError(DecodeError):
    """A file asks for more memory, pixels or nesting than the limits in force allow."""


class PreprocessingError(MskscreenError):
    """A preprocessing string does not follow the grammar."""


class ContractError(MskscreenError):
    """A model contract is missing, malformed, or of a schema newer than this software."""


class ModelError(MskscreenError):
    """A model file cannot be used: external data, missing outputs, wrong shapes, or no engine for it."""


class DataError(MskscreenError):
    """A data set, manifest, cache or table is not what it claims to be."""


class ProtocolError(MskscreenError):
    """A training protocol or configuration holds an unknown key or an impossible value."""


def short(value: object, most: int = 80) -> str:
    """A value as text to quote, cut where it would bury the sentence around it."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def one_line(text: str) -> str:
    r"""Text that stays on its line and cannot steer a terminal: what is not printable is escaped, as in `\n`.

    The name of a file may hold line breaks, escape sequences, and marks that turn round what follows them.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
