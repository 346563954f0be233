"""The exceptions of mskscreen: each message is one sentence that names the file, the field and the remedy."""


class MskscreenError(Exception):
    """Base of every error that mskscreen raises on purpose; its text is fit to be shown to a user."""


class DecodeError(MskscreenError):
    """A file could not be turned into a radiograph: unreadable, unsupported, or past a limit."""


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
