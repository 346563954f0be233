"""The public way to screen radiographs: decoding, inference and what is done with the results overlap.

from mskscreen import Screener

screener = Screener.load("demo")
table = screener.predict("folder/of/radiographs")
for study in table.studies:
    print(study.study, study.joint, study.p_abnormal)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, get_args

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.contract import ModelContract
from mskscreen.errors import ContractError, DataError, ModelError, MskscreenError, PreprocessingError
from mskscreen.inference.backends import Outputs
from mskscreen.inference.catalogue import model_path, on_server
from mskscreen.inference.engines import Engine, EngineName, Precision, cores, open_engine
from mskscreen.inference.grouping import StudyBy, check_study_by
from mskscreen.inference.grouping import group as group_of
from mskscreen.inference.order import in_order
from mskscreen.inference.sources import Source, named, several
from mskscreen.pixels import DecodeRecord, Limits, Preprocessing, Radiograph, Reading, read_radiograph
from mskscreen.predictions import (
    FLAG_CONFLICT,
    FLAG_ERROR,
    Prediction,
    Predictions,
    require_finite,
    score,
    threshold,
)

_USUAL = Limits()


@dataclass(frozen=True)
class Screened:
    """One image with all that is known of it after screening.

    `radiograph` and `evidence`, the model's map (h, w) over its input, are None where there is none, and
    `radiograph` also where nobody asked for it.
    """

    prediction: Prediction
    radiograph: Radiograph | None = None
    evidence: np.ndarray | None = None


@dataclass(frozen=True)
class _Decoded:
    file: str
    tensor: np.ndarray | None = None
    record: DecodeRecord | None = None
    radiograph: Radiograph | None = None
    error: str | None = None
    dicom: Mapping[str, str] | None = None


class Screener:
    """A model and the preprocessing that its contract asks for, ready for radiographs of any kind.

    `reading` says how finely large JPEG 2000 and JPEG images are read: `whole`; `safe`, at four times the model's
    input, which moves few probabilities by more than 0.01; `fast`, at twice (`benchmarks/decoding.py` says how
    many). `limits` bound what a file may ask for. Raises ContractError where the contract's preprocessing does not
    give the model's input.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        remote: str | None = None,
        contract: ModelContract | None = None,
        reading: Reading = "whole",
        limits: Limits = _USUAL,
    ) -> None:
        """`engine` is a model that is open, `remote` the address of one on a server: see `open_remote`.

        `contract` is for a server that holds none.
        """
        if remote:
            from mskscreen.inference.remote import open_remote

            engine = open_remote(remote, contract)
        if engine is None:
            raise ModelError(
                "a Screener needs an engine, or the address of a model as remote=; or use Screener.load"
            )
        if reading not in get_args(Reading):
            raise ModelError(f"reading is '{reading}'; name one of {', '.join(get_args(Reading))}")
        contract = engine.contract
        self.engine = engine
        self.reading = reading
        self.limits = limits
        self.preprocessing = preprocessing_of(contract)

    @classmethod
    def load(
        cls,
        path_or_name: str | Path = "demo",
        *,
        engine: EngineName = "auto",
        precision: Precision = "auto",
        threads: int | None = None,
        unapproved: bool = False,
        contract: ModelContract | None = None,
        reading: Reading = "whole",
        limits: Limits = _USUAL,
    ) -> Screener:
        """Open an ONNX file, a bundled or downloaded model by its name, or one on a server by its address.

        `engine` is auto, openvino or onnxruntime; `precision` auto (the fastest whose gate passed), f32, bf16 or
        int8, of which one without a passed gate needs `unapproved`, which flags every row; `threads` is by default
        one a core. A server chooses these itself; `contract` is for one that holds none.

        Raises ModelError, ContractError.
        """
        if on_server(path_or_name):
            asked = {"engine": engine != "auto", "precision": precision != "auto", "force-precision": unapproved}
            if any(asked.values()):
                options = " and ".join(f"--{name}" for name, given in asked.items() if given)
                raise ModelError(f"a server chooses engine and precision itself; leave out {options}")
            return cls(remote=str(path_or_name), contract=contract, reading=reading, limits=limits)
        if contract is not None:
            raise ModelError(f"{path_or_name}: is not on a server, so its own contract counts; give no other")
        opened = open_engine(model_path(path_or_name), engine, precision, threads, unapproved=unapproved)
        return cls(opened, reading=reading, limits=limits)

    def predict(
        self,
        sources: Source | Iterable[Source],
        *,
        at: str = "balanced",
        study_by: StudyBy = "auto",
        workers: int | None = None,
    ) -> Predictions:
        """The predictions table of files, folders, glob patterns, bytes of a file, arrays or pydicom data sets.

        Rows are in the order of the sources. A source that cannot be read is a row with an error. `at` names
        an operating point of the contract; `study_by` is auto (the DICOM study or MURA folder, else each image by
        itself), folder or none. Raises DataError for an unknown one, for arguments that make no sense,
        and where a folder or a pattern that is the only source holds no radiograph.
        """
        rows = tuple(self.stream(sources, at=at, study_by=study_by, workers=workers))
        return Predictions(rows, self.describe(at), threshold(self.engine.contract, at))

    def stream(
        self,
        sources: Source | Iterable[Source],
        *,
        at: str = "balanced",
        study_by: StudyBy = "auto",
        workers: int | None = None,
        inspect: Callable[[Screened], None] | None = None,
    ) -> Generator[Prediction]:
        """Rows of `predict` one by one, in memory that does not grow with their number.

        `workers` threads decode (default: one a core) and call `inspect`, if given, with each image before its
        row is yielded. Raises what `predict` raises.
        """
        threshold(self.engine.contract, at)
        check_study_by(study_by)
        if workers is not None and workers < 1:
            raise DataError(f"workers is {workers}; give 1 or more, or None for one a core")
        return self._stream(several(sources), at, study_by, workers or cores(), inspect)

    def describe(self, at: str = "balanced") -> dict[str, Any]:
        """What a predictions table says of the model that made it, at the operating point `at`."""
        import mskscreen

        contract = self.engine.contract
        source = getattr(self.engine.backend, "source", None)  # only of a model on a server
        return {
            "name": contract.name,
            "architecture": contract.architecture,
            "tasks": list(contract.tasks),
            "sha256": self.engine.digest,
            "contract": contract.digest,
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "operating_point": at,
            "reading": self.reading,
            "mskscreen": mskscreen.__version__,
            "intended_use": contract.intended_use,
            **({"server": source} if source else {}),
        }

    def _stream(
        self,
        sources: Iterable[Source],
        at: str,
        study_by: StudyBy,
        workers: int,
        inspect: Callable[[Screened], None] | None,
    ) -> Generator[Prediction]:
        pool = ThreadPoolExecutor(workers, "decode")

        def decode(item: tuple[str, Source]) -> Callable[[], _Decoded]:
            return pool.submit(self._decode, *item, keep=inspect is not None).result

        def infer(group: list[_Decoded]) -> Callable[[], list[Screened]]:
            return self._infer(group, at, study_by)

        try:
            decoded = in_order(named(sources), decode, 2 * workers)
            groups = in_order(_groups(decoded, self.engine.unit), infer, self.engine.depth)
            screened: Iterator[Screened] = itertools.chain.from_iterable(groups)
            if inspect:
                screened = in_order(screened, _doing(inspect, pool), 2 * workers)
            for image in screened:
                yield image.prediction
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, file: str, source: Source, *, keep: bool) -> _Decoded:
        try:
            enough = self.preprocessing.enough(self.reading)
            radiograph = read_radiograph(source, self.limits, enough=enough, name=file)
            tensor = self.preprocessing(radiograph)
            dicom = radiograph.record.dicom
            if keep and radiograph.record.halvings:
                # A picture for a person shows all there is, and asking for one must not change the score.
                return _Decoded(file, tensor, radiograph.record, read_radiograph(source, self.limits), dicom=dicom)
        except MskscreenError as error:
            return _Decoded(file, error=str(error), dicom=getattr(error, "dicom", None))
        return _Decoded(file, tensor, radiograph.record, radiograph if keep else None, dicom=dicom)

    def _infer(self, group: list[_Decoded], at: str, study_by: StudyBy) -> Callable[[], list[Screened]]:
        """Start the run of a group; the call that is returned gives its rows, failures among them."""
        tensors = [image.tensor for image in group if image.tensor is not None]
        finish = self.engine.start(np.stack(tensors)) if tensors else None

        def rows() -> list[Screened]:
            outputs = finish() if finish else {}
            scored = iter(range(len(tensors)))
            return [
                self._row(image, outputs, next(scored) if image.tensor is not None else None, at, study_by)
                for image in group
            ]

        return rows

    def _row(self, image: _Decoded, outputs: Outputs, index: int | None, at: str, study_by: StudyBy) -> Screened:
        record = image.record
        study, patient = group_of(image.file, image.dicom, study_by)
        row = Prediction(
            image.file, study, patient=patient, flags=(FLAG_ERROR, *self.engine.flags), error=image.error
        )
        if record is None or index is None:
            return Screened(row)
        row = replace(row, digest=record.digest)
        novelty = float(outputs["novelty"][index]) if "novelty" in outputs else None
        evidence = outputs["map"][index, 0] if "map" in outputs else None
        try:
            if evidence is not None:
                require_finite("map is", evidence)
            fields = score(
                self.engine.contract, outputs["pred1"][index], outputs["pred2"][index], at=at, novelty=novelty
            )
        except DataError as error:
            return Screened(replace(row, error=f"{PurePath(image.file).name}: {error}"))
        fields["flags"] += self.engine.flags + record.flags + _conflict(fields["joint"], record.dicom)
        return Screened(replace(row, **fields), image.radiograph, evidence)


def preprocessing_of(contract: ModelContract) -> Preprocessing:
    """The preprocessing that a contract asks for; ContractError where it does not give the model's input."""
    try:
        found = Preprocessing.parse(contract.preprocessing)
    except PreprocessingError as error:
        raise ContractError(f"contract of {contract.title}: {error}") from error
    if (found.height, found.width) != contract.input_size:
        raise ContractError(
            f"contract of {contract.title}: preprocessing '{found}' does not give the input_size "
            f"{contract.input_size}"
        )
    return found


def _groups(images: Iterator[_Decoded], unit: int) -> Iterator[list[_Decoded]]:
    while group := list(itertools.islice(images, unit)):
        yield group


def _doing(
    inspect: Callable[[Screened], None], pool: ThreadPoolExecutor
) -> Callable[[Screened], Callable[[], Screened]]:
    def inspected(screened: Screened) -> Screened:
        inspect(screened)
        return screened

    return lambda screened: pool.submit(inspected, screened).result


def _conflict(joint: str | None, dicom: Mapping[str, str] | None) -> tuple[str, ...]:
    """The flag for a DICOM file whose Body Part Examined (0018,0015) names another part than the model.

    Without a `joint` only a part that is none of the seven is another.
    """
    text = (dicom or {}).get("body_part_examined") or ""
    declared = JointType.from_body_part(text)
    other = declared.label != (joint or declared.label) if declared is not None else JointType.is_other_part(text)
    return (FLAG_CONFLICT,) if other else ()
