"""What ties the figures to what they were made from: digests, seeds and versions."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from pathlib import Path
from typing import Any

import numpy as np

import mskscreen
from mskscreen.contract import ModelContract
from mskscreen.evaluation.cases import Joined
from mskscreen.evaluation.operating import fingerprint
from mskscreen.evaluation.summary import Summary


def provenance(
    joined: Joined, development: Joined | None, contract: ModelContract | None, summary: Summary
) -> dict[str, Any]:
    """Digests, seeds and versions that tie the figures to what they were made from."""
    tables = {"evaluation": joined} | ({"development": development} if development else {})
    return {
        "model": dict(joined.table.model) or None,
        "contract": contract.digest if contract else joined.table.model.get("contract"),
        "training": dataclasses.asdict(contract.provenance) if contract else None,
        "tables": {
            name: {
                "file": part.table.name,
                "images_sha256": _images_digest(part),
                "scores_sha256": _scores_digest(part),
                "studies_sha256": fingerprint(part.cases("study")),
                "labels": part.labels.name,
            }
            for name, part in tables.items()
        },
        "settings": dict(summary.settings) | {"threshold": summary.threshold},
        "code_sha256": code_digest(),
        "versions": {
            "mskscreen": mskscreen.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _scores_digest(joined: Joined) -> str:
    """SHA-256 of images and scores, the same for every format and order of the table."""
    order = np.argsort(np.array(joined.image_keys, object), kind="stable")
    digest = hashlib.sha256("\n".join(joined.image_keys[i] for i in order).encode())
    digest.update(joined.table.p_abnormal[order].tobytes())
    digest.update(joined.table.p_joint[order].tobytes())
    return digest.hexdigest()


def _images_digest(joined: Joined) -> str | None:
    """SHA-256 of the sorted digests of the images, which pin their bytes; None where the table has none."""
    digests = joined.table.digest
    return hashlib.sha256("\n".join(sorted(map(str, digests))).encode()).hexdigest() if digests else None


def code_digest() -> str:
    """SHA-256 of the Python files of the evaluation room: what computed the figures."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
