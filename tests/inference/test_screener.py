"""From files, arrays and data sets to rows, in order and without end."""

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mskscreen import Screener
from mskscreen.errors import ContractError, DataError, ModelError
from mskscreen.inference import Screened, open_engine
from mskscreen.inference.order import in_order
from mskscreen.pixels import FLAG_BURNED_IN, FLAG_FOR_PROCESSING, FLAG_NOT_RADIOGRAPHY
from mskscreen.predictions import FLAG_CONFLICT, FLAG_ERROR, softmax


@pytest.fixture(scope="module")
def screener(model: Path) -> Screener:
    return Screener.load(model)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_folder_gives_the_rows_of_its_files_one_by_one(
    tmp_path: Path, write_png: Callable, model: Path, engine: Any
) -> None:
    files = [write_png(tmp_path / f"{i}.png", i, (20 + i, 90 - i)) for i in range(11)]
    screener = Screener.load(model, engine=engine)
    together = screener.predict(tmp_path).images
    assert [row.file for row in together] == [str(file) for file in files]
    assert together == tuple(row for file in files for row in screener.predict(file))
    assert len({row.pred1 for row in together}) == len(files)


def test_a_row_is_what_the_contract_makes_of_the_outputs(tmp_path: Path, write_png: Callable, model: Path) -> None:
    screener = Screener.load(model)
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    (row,) = screener.predict(pixels)
    outputs = screener.engine.run(pixels[None, None].astype(np.float32) / 255)
    np.testing.assert_allclose(row.pred2, outputs["pred2"][0], rtol=1e-5)
    assert row.p_abnormal == pytest.approx(softmax(outputs["pred1"][0])[1], rel=1e-5)
    assert row.digest
    assert (row.flags, row.error) == ((), None)


def test_the_same_radiograph_as_path_array_and_data_set_scores_the_same(
    tmp_path: Path, write_dicom: Callable, screener: Screener
) -> None:
    path = write_dicom(tmp_path / "a", PixelSpacing=[1, 1], WindowCenter=2048, WindowWidth=4096)
    dataset = pydicom.dcmread(path)
    table = screener.predict([path, str(path), dataset])
    assert [row.file for row in table] == [str(path), str(path), "dataset-2"]
    assert len({row.pred1 for row in table}) == 1
    assert screener.predict(dataset).images[0].pred1 == table.images[0].pred1
    for kind in (bytes, bytearray, memoryview):
        (row,) = screener.predict(kind(path.read_bytes()))
        assert (row.file, row.pred1) == ("bytes-0", table.images[0].pred1)
    assert len(screener.predict(pydicom.Dataset())) == 1
    grey = np.zeros((30, 30), np.uint8)
    assert [row.file for row in screener.predict([grey, path, grey])] == ["array-0", str(path), "array-2"]


def test_a_source_that_cannot_be_read_is_a_row_in_its_place(
    tmp_path: Path, write_png: Callable, screener: Screener
) -> None:
    good = [write_png(tmp_path / f"{i}.png", i) for i in range(2)]
    bad = tmp_path / "bad.png"
    bad.write_bytes(good[0].read_bytes()[:60])
    table = screener.predict([good[0], bad, tmp_path / "gone.png", np.zeros((2, 2, 2, 2)), good[1]])
    assert [row.error is not None for row in table] == [False, True, True, True, False]
    for row in table.images[1:4]:
        assert (row.flags, row.joint, row.p_abnormal, row.pred1) == ((FLAG_ERROR,), None, None, None)
    assert "bad.png" in (table.images[1].error or "")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s, _: s.predict(None), "a NoneType is no source"),
        (lambda s, _: s.predict(Image.new("L", (9, 9))), "a Image is no source.*numpy.asarray"),
        (lambda s, _: s.predict(io.BytesIO(b"\n\n")), "a BytesIO is no source"),
        (lambda s, _: s.predict([], workers=-1), "workers is -1"),
        (lambda s, _: s.predict([], study_by="dicom"), "study_by is 'dicom'; name one of auto, folder, none"),
        (lambda s, _: Screener(s.engine, reading="slow"), "reading is 'slow'; name one of whole, safe, fast"),
        (lambda s, folder: s.predict(folder / "*.png"), r"no radiograph in '.*\*\.png'"),
        (lambda s, folder: s.predict(str(folder)), "no radiograph in"),
    ],
)
def test_arguments_that_make_no_sense_are_one_sentence(
    screener: Screener, tmp_path: Path, call: Callable, said: str
) -> None:
    with pytest.raises((DataError, ModelError), match=said):
        call(screener, tmp_path)


def test_a_pattern_without_a_match_among_others_is_a_row_with_an_error(
    screener: Screener, tmp_path: Path, write_png: Callable
) -> None:
    rows = screener.predict([tmp_path / "*.tif", write_png(tmp_path / "a.png")]).images
    assert [row.error is None for row in rows] == [False, True]
    assert rows[0].file.endswith("*.tif")


def test_what_is_no_image_is_named_by_its_kind_and_its_place(screener: Screener) -> None:
    wrong: Any = [np.zeros((9, 9), np.uint8), 7, None, np.zeros((2, 2, 2, 2)), b"", pydicom.Dataset()]
    rows = screener.predict(wrong).images
    assert [row.file for row in rows] == ["array-0", "int-1", "NoneType-2", "array-3", "bytes-4", "dataset-5"]
    for row in rows[1:]:
        assert (row.error or "").startswith(f"{row.file}: ")


def test_scores_that_are_not_finite_are_a_row_with_an_error(
    tmp_path: Path, tiny_model: Callable, write_png: Callable
) -> None:
    def overflow(model: Any) -> None:
        model.graph.initializer[1].raw_data = np.full((8, 2), np.inf, np.float32).tobytes()

    screener = Screener.load(tiny_model(tmp_path / "m.onnx", edit=overflow))
    (row,) = screener.predict(write_png(tmp_path / "a.png"))
    assert "not finite" in (row.error or "")
    assert row.flags == (FLAG_ERROR,)


@pytest.mark.parametrize("unit", [1, 3])
def test_errors_between_good_images_do_not_shift_a_fixed_batch(
    tmp_path: Path,
    tiny_model: Callable,
    tiny_contract: Callable,
    write_png: Callable,
    unit: int,
    screener: Screener,
) -> None:
    fixed = Screener.load(tiny_model(tmp_path / "m.onnx", batch=unit, contract=tiny_contract(batch=unit)))
    files = [write_png(tmp_path / f"{i}.png", i) for i in range(8)]
    for place in (0, 3, 4, 7):
        files[place].write_bytes(b"")
    found, expected = fixed.predict(files), screener.predict(files)
    assert [row.error for row in found] == [row.error for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.pred1 == pytest.approx(other.pred1, rel=1e-5) if other.pred1 else one.pred1 is None


def test_flags_come_from_the_dicom_header(tmp_path: Path, write_dicom: Callable, screener: Screener) -> None:
    joint = screener.predict(write_dicom(tmp_path / "plain")).images[0].joint
    other = "HAND" if joint != "hand" else "ELBOW"
    flags = {
        name: screener.predict(write_dicom(tmp_path / name, **elements)).images[0].flags
        for name, elements in {
            "agrees": {"BodyPartExamined": (joint or "").upper()},
            "conflicts": {"BodyPartExamined": other},
            "foot": {"BodyPartExamined": "FOOT"},
            "neck": {"BodyPartExamined": "C SPINE"},
            "text": {"BurnedInAnnotation": "YES"},
            "no text": {"BurnedInAnnotation": "NO"},
            "ct": {"Modality": "CT"},
            "unknown": {"BodyPartExamined": "EXTREMITY"},
            "raw": {
                "PresentationIntentType": "FOR PROCESSING",
                "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1",
            },
        }.items()
    }
    assert flags == {
        "agrees": (),
        **dict.fromkeys(("conflicts", "foot", "neck"), (FLAG_CONFLICT,)),
        "text": (FLAG_BURNED_IN,),
        "no text": (),
        "ct": (FLAG_NOT_RADIOGRAPHY,),
        "unknown": (),
        "raw": (FLAG_FOR_PROCESSING,),
    }


def test_dicom_views_of_one_study_are_one_study(tmp_path: Path, write_dicom: Callable, screener: Screener) -> None:
    for name, uid in {"a/IM1": "1.2.3", "b/IM2": "1.2.3", "b/IM3": "1.2.4"}.items():
        write_dicom(tmp_path / name, seed=len(uid), StudyInstanceUID=uid, PatientID="secret-id")
    table = screener.predict(tmp_path)
    assert {study.study: study.images for study in table.studies} == {"1.2.3": 2, "1.2.4": 1}
    assert len(screener.predict(tmp_path, study_by="none").studies) == 3
    assert {study.images for study in screener.predict(tmp_path, study_by="folder").studies} == {1, 2}
    assert "secret-id" not in table.dumps("json")


def test_a_dicom_view_that_cannot_be_decoded_is_an_error_of_its_study(
    tmp_path: Path, write_dicom: Callable, screener: Screener
) -> None:
    paths = [write_dicom(tmp_path / f"{name}.dcm", StudyInstanceUID="1.2.3.4") for name in ("whole", "torn")]
    paths[1].write_bytes(paths[1].read_bytes()[:-500])
    found = screener.predict(paths)
    (study,) = found.studies
    assert found.images[1].error
    assert (study.study, study.images, study.errors) == ("1.2.3.4", 2, 1)


def test_the_operating_point_decides_and_an_unknown_one_is_refused_at_once(
    tmp_path: Path, write_png: Callable, screener: Screener
) -> None:
    files = [write_png(tmp_path / f"{i}.png", i) for i in range(6)]
    for at, threshold in (("sensitive", 0.2), ("balanced", 0.5), ("specific", 0.8)):
        table = screener.predict(files, at=at)
        assert table.threshold == threshold
        assert [row.abnormal for row in table] == [(row.p_abnormal or 0) >= threshold for row in table]
    with pytest.raises(DataError, match="operating point 'best'"):
        screener.stream(files, at="best")


def test_a_stream_takes_no_more_than_it_needs_and_can_be_left(write_png: Callable, screener: Screener) -> None:
    taken = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(1)
            yield np.zeros((8, 8), np.uint8)

    before = threading.active_count()
    stream = screener.stream(endless(), workers=2)
    for _ in range(50):
        next(stream)
    bound = 50 + 2 * 2 + screener.engine.depth + 2
    assert len(taken) <= bound
    stream.close()
    assert len(taken) <= bound
    assert threading.active_count() <= before
    assert screener.predict(np.zeros((8, 8), np.uint8)).images[0].error is None


def test_a_picture_of_a_large_image_is_whole_and_its_score_the_same(tmp_path: Path, screener: Screener) -> None:
    y, x = np.mgrid[:400, :300]
    Image.fromarray((127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8)).save(tmp_path / "a.jpg")
    seen: list[Screened] = []
    coarse = Screener(screener.engine, reading="safe")
    rows = [*coarse.stream(tmp_path), *coarse.stream(tmp_path, inspect=seen.append)]
    assert rows[0] == rows[1]
    assert seen[0].radiograph is not None
    assert seen[0].radiograph.pixels.shape == (400, 300)
    whole = screener.predict(tmp_path).images[0]  # what is read by default
    assert whole.digest != rows[0].digest
    assert whole.pred1 == pytest.approx(rows[0].pred1, abs=0.05)
    assert coarse.describe() != screener.describe()


def test_each_image_is_inspected_once_before_its_row_comes(
    tmp_path: Path, write_png: Callable, screener: Screener
) -> None:
    for i in range(9):
        write_png(tmp_path / f"{i}.png", i)
    (tmp_path / "9.png").write_bytes(b"no image")
    seen: dict[str, Screened] = {}

    def inspect(image: Screened) -> None:
        assert image.prediction.file not in seen
        seen[image.prediction.file] = image

    for row in screener.stream(tmp_path, inspect=inspect):
        image = seen[row.file]
        assert image.prediction == row
        if row.error is None:
            assert image.radiograph is not None
            assert image.radiograph.pixels.shape == (40, 50)
            assert image.evidence is not None
            assert image.evidence.shape == (16, 16)
    assert len(seen) == 10


def test_an_error_while_inspecting_ends_the_stream(
    tmp_path: Path, write_png: Callable, screener: Screener
) -> None:
    def full(image: Screened) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        list(screener.stream([write_png(tmp_path / "a.png")] * 20, inspect=full))


@pytest.mark.parametrize("sources", [[], ()])
def test_nothing_gives_an_empty_table(screener: Screener, sources: Any) -> None:
    table = screener.predict(sources)
    assert (len(table), table.studies) == (0, [])


def test_a_contract_that_contradicts_itself_is_refused(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable
) -> None:
    contract = tiny_contract(preprocessing="decode|grayscale|resize(64,32,bilinear,antialias)|unit")
    with pytest.raises(ContractError, match=r"64,32.*\(32, 32\)"):
        Screener.load(tiny_model(tmp_path / "m.onnx", contract=contract))


def test_an_unknown_model_name_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"model 'nonsense' is neither .* bundled"):
        Screener.load("nonsense")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_wrong_output_whose_shape_shows_only_at_run_time_is_found(
    tmp_path: Path, tiny_model: Callable, write_png: Callable, engine: Any
) -> None:
    def reshape_by_content(model: Any) -> None:
        """Make pred1 (B, 7) by a shape that depends on the pixels, so that no engine can foresee it."""
        graph = model.graph
        graph.node[4].CopyFrom(helper.make_node("Gemm", ["flat", "head2"], ["wide"]))
        graph.initializer.append(numpy_helper.from_array(np.array([1e-9, 7], np.float32), "numbers"))
        graph.node.append(helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0))
        graph.node.append(helper.make_node("Mul", ["brightest", "numbers"], ["scaled"]))
        graph.node.append(helper.make_node("Div", ["scaled", "brightest"], ["sizes"]))
        graph.node.append(helper.make_node("Cast", ["sizes"], ["shape"], to=TensorProto.INT64))
        graph.node.append(helper.make_node("Reshape", ["wide", "shape"], ["pred1"]))
        graph.output[0].type.tensor_type.ClearField("shape")

    engine = open_engine(tiny_model(tmp_path / "m.onnx", edit=reshape_by_content), engine)
    with pytest.raises(ModelError, match=r"'pred1' has shape \(1, 7\), expected \(1, 2\)"):
        Screener(engine).predict(np.full((9, 9), 128, np.uint8))


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_results_come_in_order_with_no_more_jobs_under_way_than_allowed(depth: int) -> None:
    under_way, most = 0, 0

    def start(item: int) -> Callable[[], int]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)

        def wait() -> int:
            nonlocal under_way
            under_way -= 1
            return item * item

        return wait

    assert list(in_order(range(20), start, depth)) == [i * i for i in range(20)]
    assert most == depth
    left = in_order(range(20), start, depth)
    next(left)
    left.close()
    assert under_way == 0


def test_predicting_imports_neither_torch_nor_the_libraries_of_training(
    tmp_path: Path, write_png: Callable, write_dicom: Callable, model: Path
) -> None:
    write_png(tmp_path / "a.png")
    write_dicom(tmp_path / "b")
    code = (
        "import sys, mskscreen\n"
        "assert not {'numpy', 'openvino', 'PIL'} & set(sys.modules), 'import mskscreen is not lazy'\n"
        f"table = mskscreen.Screener.load({str(model)!r}).predict({str(tmp_path)!r})\n"
        "assert [row.error for row in table] == [None, None], table\n"
        "print(sorted({'torch', 'torchvision', 'timm', 'lightning', 'onnx', 'pyarrow', 'pandas', 'scipy'}"
        " & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
