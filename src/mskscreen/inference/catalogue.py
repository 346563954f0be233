"""Where models are found: a path, or the name of a model that is bundled with mskscreen."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path

from mskscreen.contract import METADATA_KEY, ModelContract
from mskscreen.errors import ContractError, ModelError
from mskscreen.inference.onnx_file import read_metadata


def model_path(path_or_name: str | Path) -> Path:
    """Path of an ONNX file: itself, or that of a bundled model such as `demo`.

    Raises ModelError that lists the known names.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    items = (Path(str(item)) for item in resources.files("mskscreen.models").iterdir())
    models = {item.stem: item for item in items if item.suffix == ".onnx"}
    if str(path_or_name) in models:
        return models[str(path_or_name)]
    known = ", ".join(sorted(models)) or "none"
    raise ModelError(f"model '{path_or_name}' is neither an ONNX file nor a bundled model (bundled: {known})")


def read_contract(path: Path) -> ModelContract:
    """The contract of an ONNX file: from its metadata or, for a foreign model, from `NAME.toml` beside it.

    The fields of the TOML are those of ModelContract. Raises ModelError, ContractError.
    """
    metadata = read_metadata(path)
    beside = path.with_suffix(".toml")
    try:
        if METADATA_KEY in metadata:
            return ModelContract.from_json(metadata[METADATA_KEY])
        if beside.is_file():
            return ModelContract.from_json(
                json.dumps(tomllib.loads(beside.read_text(encoding="utf-8")), default=str)
            )
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise ContractError(f"{beside}: not a TOML file that can be read ({error})") from error
    raise ContractError(
        f"{path}: holds no contract; export it with mskscreen, or describe it in {beside.name} beside it"
    )
