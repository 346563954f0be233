"""Where models are found: a path, a bundled name, or one of the six published files; and their contracts."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.contract import METADATA_KEY, ModelContract, Provenance
from mskscreen.errors import ContractError, ModelError, short
from mskscreen.inference.onnx_file import read_metadata
from mskscreen.storage import cache_folder

_NOTES = (
    "The release does not say how its images were preprocessed: aspect ratio, window and scale are assumptions of "
    "mskscreen. It gives no evidence map, no calibration and no operating point: 0.5 stands for its argmax."
)


@dataclass(frozen=True)
class PublishedModel:
    """A file of the published release; `input_size` is the side of its square input in pixels."""

    name: str
    title: str
    file: str
    bytes: int
    sha256: str
    input_size: int
    url: str

    @property
    def path(self) -> Path:
        """Where a download is kept, whether it is there or not."""
        return cache_folder() / "models" / self.file

    @property
    def contract(self) -> ModelContract:
        """The contract of the file as it was published: batch 1, no map, nothing calibrated."""
        size = self.input_size
        return ModelContract(
            name=f"published {self.name}",
            architecture=self.name,
            preprocessing=f"decode|grayscale|window(auto)|resize({size},{size},bilinear,antialias)|unit",
            input_size=(size, size),
            batch=1,
            provenance=Provenance(
                data="MURA, as the release says", notes=_NOTES, licence="Apache-2.0, copyright 2020 Debdoot Sheet"
            ),
            intended_use=NOT_FOR_DIAGNOSIS,
        )


@cache
def published() -> dict[str, PublishedModel]:
    """The six published files by name."""
    text = resources.files("mskscreen.models").joinpath("published.toml").read_text(encoding="utf-8")
    return {name: PublishedModel(name, **fields) for name, fields in tomllib.loads(text).items()}


def published_as(path: Path) -> PublishedModel | None:
    """The published file that this file is, by size and SHA-256."""
    size = path.stat().st_size
    for model in published().values():
        if model.bytes == size:
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == model.sha256:
                    return model
    return None


def on_server(path_or_name: str | Path) -> bool:
    """Whether a model is named by its address on a server."""
    return str(path_or_name).startswith(("http://", "https://"))


def model_path(path_or_name: str | Path) -> Path:
    """Path of an ONNX file: itself, that of a bundled model such as `demo`, or that of a download.

    Raises ModelError that lists the known names.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    name = str(path_or_name)
    items = (Path(str(item)) for item in resources.files("mskscreen.models").iterdir())
    models = {item.stem: item for item in items if item.suffix == ".onnx"}
    if name in models:
        return models[name]
    if name in published():
        file = published()[name].path
        if file.is_file():
            return file
        raise ModelError(f"model '{name}' is not here yet; fetch it with: mskscreen model download {name}")
    known = f"bundled: {', '.join(sorted(models)) or 'none'}; published: {', '.join(published())}"
    if path.suffix or path.exists():
        what = "is a folder" if path.is_dir() else "is not a file" if path.exists() else "is not there"
        raise ModelError(f"{path}: {what}; name an ONNX file or a model ({known})")
    raise ModelError(f"model '{path_or_name}' is neither an ONNX file nor a bundled model ({known})")


def read_contract(path: Path) -> ModelContract:
    """The contract of an ONNX file: from its metadata, from `NAME.toml` beside it, or of the published file it is.

    The fields of the TOML are those of ModelContract. Raises ModelError, ContractError.
    """
    metadata = read_metadata(path)
    beside = path.with_suffix(".toml")
    if METADATA_KEY in metadata:
        return parse_contract(path, metadata[METADATA_KEY])
    if beside.is_file():
        return described_by(beside)
    if known := published_as(path):
        return known.contract
    raise ContractError(
        f"{path}: holds no contract; export it with mskscreen, or describe it in {beside.name} beside it"
    )


def is_model(path: Path) -> bool:
    """Whether a file is ONNX that carries a contract: one that mskscreen wrote."""
    try:
        return METADATA_KEY in read_metadata(path)
    except ModelError:
        return False


def described_by(description: Path) -> ModelContract:
    """The contract that a TOML file holds, whose fields are those of ModelContract.

    Raises ContractError.
    """
    try:
        text = json.dumps(tomllib.loads(description.read_text(encoding="utf-8")), default=str)
    except (OSError, ValueError, RecursionError) as error:
        raise ContractError(f"{description}: not a TOML file that can be read ({short(error, 200)})") from error
    return parse_contract(description, text, f"edit {description.name}")


def parse_contract(place: Path | str, text: str, remedy: str = "export the model again") -> ModelContract:
    """A contract of JSON; ContractError names the place that it comes from, and the `remedy` for a wrong field."""
    try:
        return ModelContract.from_json(text, remedy)
    except ContractError as error:
        raise ContractError(f"{place}: {error}") from error
