"""Calibration and operating points of a model, from development predictions into the contract in its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mskscreen.contract import METADATA_KEY, Calibration, ModelContract
from mskscreen.errors import DataError
from mskscreen.evaluation.calibration import fit_temperature
from mskscreen.evaluation.cases import Cases, means
from mskscreen.evaluation.operating import RULES, OperatingPoint, Rule, choose_all, fingerprint
from mskscreen.inference.onnx_file import read_metadata, write_metadata
from mskscreen.predictions import softmax

# Where the provenance of a contract says which studies it was calibrated on.
PROVENANCE_KEY = "calibration"
_MARK = 10


def fit_calibration(cases: Cases) -> Calibration:
    """Temperatures of both tasks that minimise the log loss of `cases`, at the level of the cases.

    That of a task which the model did not learn is 1, and so is the joint's where fewer than two joint types are
    known, unless it is the only one. Raises DataError where raw scores or a class are missing.
    """
    silent = cases.table.silent
    pred1, pred2 = cases.table.pred1[cases.rows], cases.table.pred2[cases.rows]
    jointless = np.isnan(pred2).all()  # of a model that did not learn joints
    if not ((silent or np.isfinite(pred1).all()) and (jointless or np.isfinite(pred2).all())):
        raise DataError(
            f"{cases.table.name}: a temperature needs the raw scores pred1 and pred2; run predict again"
        )
    abnormality = 1.0 if silent else fit_temperature(pred1, cases.labels.astype(np.intp), cases.group)
    known = np.flatnonzero(cases.joint >= 0)
    if jointless or (len(np.unique(cases.joint[known])) < 2 and not silent):
        return Calibration(abnormality, 1.0)
    chosen = cases.select(known)
    return Calibration(abnormality, fit_temperature(cases.table.pred2[chosen.rows], chosen.joint, chosen.group))


def recalibrated(cases: Cases, calibration: Calibration) -> Cases:
    """The cases with probabilities computed anew from the raw scores of their images."""
    p = softmax(cases.table.pred1[cases.rows], calibration.abnormality_temperature)[:, 1:]
    p_joint = softmax(cases.table.pred2[cases.rows], calibration.joint_temperature)
    return replace(cases, p=means(p, cases.offsets)[:, 0], p_joint=means(p_joint, cases.offsets))


def calibrated_contract(
    contract: ModelContract, development: Cases, rules: Mapping[str, Rule] = RULES, *, fit: Cases | None = None
) -> tuple[ModelContract, dict[str, OperatingPoint]]:
    """The contract with temperatures fitted on `fit` and operating points chosen on `development`.

    `development` are studies; `fit` is the same table at the level the temperature is fitted on (None: studies). A
    model that did not learn abnormality keeps its operating points, and none are returned.
    The provenance records the fingerprint of the studies and a mark of each image, so that evaluating the points
    on them can be refused.
    Precisions must pass their gate anew, since it counted decisions at the old thresholds.
    """
    calibration = fit_calibration(fit or development)
    points = {} if development.table.silent else choose_all(recalibrated(development, calibration), rules)
    record = {
        "studies": len(development),
        "fingerprint": fingerprint(development),
        "rules": {name: str(point.rule) for name, point in points.items()},
        "images": "".join(sorted(_marks(development))),
    }
    provenance = replace(contract.provenance, protocol={**contract.provenance.protocol, PROVENANCE_KEY: record})
    thresholds = {name: point.threshold for name, point in points.items()}
    updated = replace(
        contract,
        calibration=calibration,
        operating_points=thresholds or contract.operating_points,
        provenance=provenance,
        approved={},
        variants={},
    )
    return updated, points


def require_not_chosen_on(contract: ModelContract, cases: Cases) -> None:
    """Raise DataError where the contract says that it was calibrated on some of these images.

    Images are told by their digests; without digests only exactly the same studies are.
    """
    record = contract.provenance.protocol.get(PROVENANCE_KEY)
    if not isinstance(record, Mapping):
        return
    text = str(record.get("images", ""))
    chosen = {text[k : k + _MARK] for k in range(0, len(text), _MARK)}
    shared = len(_marks(cases) & chosen)
    if shared or record.get("fingerprint") == fingerprint(cases):
        what = f"{shared} of these images" if shared else "exactly these studies"
        raise DataError(f"{cases.table.name}: {contract.title} was calibrated on {what}; evaluate it on others")


def _marks(cases: Cases) -> set[str]:
    """The beginning of the digest of each image: long enough that another image has it once in 10^12."""
    digests = cases.table.digest
    return {str(digests[row])[:_MARK] for row in cases.rows.tolist() if digests[row]} if digests else set()


def as_trained(contract: ModelContract) -> ModelContract:
    """The contract that the checkpoint of a model had, before export and calibration added to it."""
    provenance = contract.provenance
    protocol = {name: value for name, value in provenance.protocol.items() if not isinstance(value, Mapping)}
    return replace(
        contract,
        calibration=Calibration(),
        operating_points={"balanced": 0.5},
        map=None,
        approved={},
        variants={},
        selftest=None,
        content_sha256="",
        precision="f32",
        provenance=replace(provenance, protocol=protocol),
    )


def require_same_model(cases: Cases, contract: ModelContract) -> None:
    """Raise DataError where the table says that another model made it."""
    model = cases.table.model
    # The table of a training run knows the checkpoint, to whose contract export and calibrate add.
    made_by, digest = model.get("contract"), contract.digest
    if made_by is None:
        made_by, digest = model.get("checkpoint"), as_trained(contract).digest
    if made_by is not None and made_by != digest:
        raise DataError(
            f"{cases.table.name} was not made by {contract.title} as it is in this file; "
            "predict the images with it"
        )


def write_contract(model: Path, contract: ModelContract, out: Path) -> None:
    """Write a copy of an ONNX file whose metadata holds `contract`, whole or not at all.

    Raises ModelError where `model` is not a self-contained ONNX file.
    """
    read_metadata(model)
    write_metadata(model, METADATA_KEY, contract.to_json(), out)
