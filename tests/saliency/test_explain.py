"""`mskscreen explain`: what it writes, and that maps lie where they belong on the original pixels."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.contract import METADATA_KEY, Provenance
from mskscreen.errors import DataError, ModelError
from mskscreen.evaluation.explain import files
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.onnx_file import write_metadata
from mskscreen.saliency.maps import MapRecord, read_records
from mskscreen.saliency.overlay import LONG_SIDE

RUN = CliRunner()
# Centre (row, column) and half side of the square, as shares of the long side.
SHARE = 0.08


def with_square(shape, centre, high):
    pixels = np.full(shape, high // 20)
    half = SHARE * max(shape)
    y, x = np.ogrid[: shape[0], : shape[1]]
    pixels[(abs(y - centre[0]) <= half) & (abs(x - centre[1]) <= half)] = high
    return pixels


def explain(*arguments):
    found = RUN.invoke(app, ["explain", *map(str, arguments)])
    assert found.exit_code == 0, found.output
    return found


def centre_of(record, folder):
    values = record.values(folder)
    return np.argwhere(values > 0.6 * values.max()).mean(0)


@pytest.mark.parametrize("kind", ["png", "dicom", "turned"])
@pytest.mark.parametrize(
    ("fit", "shape"), [("letterbox", (57, 133)), ("letterbox", (211, 64)), ("resize", (301, 299))]
)
def test_a_bright_square_is_found_where_it_is(bright_model, write_dicom, tmp_path, kind, fit, shape):
    centre = (0.7 * shape[0], 0.3 * shape[1])
    if kind == "dicom":
        stored = with_square(shape, centre, 4000).astype(np.uint16)
        elements = {"Rows": shape[0], "Columns": shape[1], "WindowCenter": 2048, "WindowWidth": 4096}
        file = write_dicom(tmp_path / "a.dcm", PixelData=stored.tobytes(), **elements)
    else:
        file = tmp_path / "a.png"
        picture = Image.fromarray(with_square(shape, centre, 250).astype(np.uint8))
        exif = Image.Exif()
        if kind == "turned":
            # The file holds the radiograph on its side and says so: 6 asks for a quarter turn to the right.
            picture = picture.transpose(Image.Transpose.ROTATE_90)
            exif[0x0112] = 6
        picture.save(file, exif=exif)
    methods = ["hirescam", "gradcam", "cam", "occlusion", "rise"]
    chosen = [part for method in methods for part in ("--method", method)]
    explain(file, "--out", tmp_path / "out", "--model", bright_model(fit), *chosen, "--passes", 512)
    records = list(read_records(tmp_path / "out"))
    assert sorted(record.method for record in records) == sorted(methods)
    for record in records:
        assert (record.rows, record.columns) == shape
        assert record.orientation == (6 if kind == "turned" else 1)
        # A cell of the coarsest method, RISE, is a seventh of the input; the others are held to a tenth.
        reach = (0.15 if record.method == "rise" else 0.1) * max(shape)
        assert np.hypot(*(centre_of(record, tmp_path / "out") - centre)) < reach, record.method


def test_a_model_without_a_map_or_a_contract_has_maps_too(bright_model, tmp_path):
    """A foreign file as the release holds them: a description beside it says what it is."""
    foreign = tmp_path / "foreign.onnx"
    model = onnx.load(bright_model(with_map=False))
    del model.metadata_props[:]
    onnx.save(model, foreign)
    (tmp_path / "foreign.toml").write_text(
        'name = "foreign"\narchitecture = "bright"\ninput_size = [64, 64]\n'
        'preprocessing = "decode|grayscale|window(auto)|letterbox(64,64,bilinear,antialias)|unit"\n'
    )
    centre = (70, 60)
    Image.fromarray(with_square((101, 203), centre, 250).astype(np.uint8)).save(tmp_path / "a.png")
    chosen = ["--method", "hirescam", "--method", "rise", "--method", "occlusion", "--normal", "--passes", 512]
    explain(tmp_path / "a.png", "--out", tmp_path / "out", "--model", foreign, *chosen)
    records = list(read_records(tmp_path / "out"))
    assert len(records) == 3
    for record in records:
        assert np.hypot(*(centre_of(record, tmp_path / "out") - centre)) < 0.15 * 203, record.method


def test_hirescam_is_exact_to_a_part_of_a_pixel(bright_model, tmp_path):
    # Whole cells of the map: the square covers rows 120-151 and columns 40-71 of a source twice the input.
    pixels = np.zeros((256, 256), np.uint8)
    pixels[120:152, 40:72] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    explain(tmp_path / "a.png", "--out", tmp_path / "o", "--model", bright_model(), "--raw", "npy")
    (record,) = read_records(tmp_path / "o")
    values = record.values(tmp_path / "o")
    centre = (np.indices(values.shape) * values).sum((1, 2)) / values.sum()
    np.testing.assert_allclose(centre, [135.5, 55.5], atol=1e-3)


def test_a_large_jpeg_keeps_all_its_pixels(bright_model, tmp_path):
    # predict reads such files at a fraction of their resolution.
    Image.fromarray(with_square((1024, 1280), (700, 300), 250).astype(np.uint8)).save(tmp_path / "a.jpg")
    explain(tmp_path / "a.jpg", "--out", tmp_path / "o", "--model", bright_model())
    (record,) = read_records(tmp_path / "o")
    assert (record.rows, record.columns) == (1024, 1280)
    assert np.hypot(*(centre_of(record, tmp_path / "o") - (700, 300))) < 60


def test_captions_name_the_file_and_never_its_folder(bright_model, write_png, tmp_path, monkeypatch):
    said = []
    draw = files.draw_overlay
    monkeypatch.setattr(files, "draw_overlay", lambda *a, **k: said.append(a[2]) or draw(*a, **k))
    explain(write_png(tmp_path / "secret" / "a.png", 4), "--out", tmp_path / "out", "--model", bright_model())
    (caption,) = said
    assert caption.startswith("a.png: ")
    assert "secret" not in caption


def test_both_heads_and_their_captions(bright_model, write_png, tmp_path):
    file = write_png(tmp_path / "a.png", 4)
    for of in ("abnormal", "joint", "shoulder"):
        explain(file, "--out", tmp_path / "out", "--model", bright_model(), "--of", of)
    said = {record.of: record for record in read_records(tmp_path / "out")}
    assert set(said) == {"abnormal", "wrist", "shoulder"}
    wrist, shoulder = (said[name].values(tmp_path / "out") for name in ("wrist", "shoulder"))
    assert wrist.min() > 0 > shoulder.max()


def test_raw_forms_hold_the_same_values(bright_model, write_png, tmp_path):
    file = write_png(tmp_path / "a.png", 3, (90, 70))
    values = []
    for form in ("png", "npy"):
        explain(file, "--out", tmp_path / form, "--model", bright_model(), "--raw", form)
        (record,) = read_records(tmp_path / form)
        assert Path(record.map).suffix == f".{form}"
        values.append(record.values(tmp_path / form))
    np.testing.assert_allclose(values[0], values[1], atol=2e-5 * np.ptp(values[1]))


def test_no_map_for_images_called_normal_unless_asked(bright_model, write_png, tmp_path):
    file, model = write_png(tmp_path / "a.png"), bright_model(bias=-100)
    explain(file, "--out", tmp_path / "out", "--model", model)
    (record,) = read_records(tmp_path / "out")
    assert (record.map, record.overlay, record.reason) == (None, None, "called normal")
    assert not list((tmp_path / "out").glob("*.png"))
    with pytest.raises(DataError, match="called normal"):
        record.values(tmp_path / "out")
    explain(file, "--out", tmp_path / "out", "--model", model, "--normal")
    assert next(read_records(tmp_path / "out")).map is not None


def test_pages(bright_model, write_png, tmp_path):
    files = [write_png(tmp_path / f"{seed}.png", seed, (80, 80)) for seed in (2, 3)]
    chosen = ["--model", bright_model(), "--method", "hirescam", "--method", "occlusion"]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "contact-sheet-2.png").write_bytes(b"of an earlier run with more pictures")
    explain(*files, "--out", tmp_path / "one", *chosen, "--sheet")
    assert [path.name for path in (tmp_path / "one").glob("contact*")] == ["contact-sheet.png"]
    explain(*files, "--out", tmp_path / "each", *chosen, "--layout", "overlay")
    together, apart = (sorted((tmp_path / name).glob("*.overlay.png")) for name in ("one", "each"))
    assert (len(together), len(apart)) == (2, 4)
    # A page of the radiograph and two maps is wider than three pictures, one of a map alone than one.
    assert Image.open(together[0]).width > 3 * LONG_SIDE > 2 * LONG_SIDE > Image.open(apart[0]).width
    sheet = Image.open(tmp_path / "one" / "contact-sheet.png")
    assert sheet.width > 2 * 600
    explain(*files, "--out", tmp_path / "one", *chosen)
    assert (tmp_path / "one" / "contact-sheet.png").exists(), "it still shows what is there"
    explain(*files, "--out", tmp_path / "one", *chosen, "--of", "wrist")
    assert (tmp_path / "one" / "contact-sheet.png").exists()
    explain(files[0], "--out", tmp_path / "one", "--model", bright_model(bias=2))
    assert not (tmp_path / "one" / "contact-sheet.png").exists(), "a picture on it is of another model"
    assert not (tmp_path / "each" / "contact-sheet.png").exists()


def test_integrated_gradients_without_their_checkpoint_are_a_wrong_call(bright_model, write_png, tmp_path):
    chosen = ["--method", "integrated-gradients", "--out", str(tmp_path / "out"), "--model", str(bright_model())]
    found = RUN.invoke(app, ["explain", str(write_png(tmp_path / "a.png")), *chosen])
    assert found.exit_code == 2
    assert "needs the checkpoint of the model" in " ".join(found.stderr.split())
    assert not (tmp_path / "out").exists()


def test_plain_cam_is_refused_before_an_image_is_looked_at(bright_model, write_png, tmp_path):
    file = write_png(tmp_path / "a.png")
    chosen = ["--method", "hirescam", "--method", "cam", "--model", str(bright_model(hidden=True))]
    with pytest.raises(ModelError, match="plain CAM asks for one linear layer"):
        RUN.invoke(app, ["explain", str(file), "--out", str(tmp_path / "out"), *chosen], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_a_second_run_does_nothing_and_other_settings_do_it_again(bright_model, write_png, tmp_path):
    file, out = write_png(tmp_path / "a.png", 4), tmp_path / "out"
    base = [file, "--out", out, "--model", bright_model(), "--method", "rise"]
    explain(*base, "--passes", 128)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "nothing to do" in explain(*base, "--passes", 128).stderr
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "nothing to do" not in explain(*base, "--passes", 256).stderr
    assert next(read_records(out)).passes == 256
    next(out.glob("*.map.json")).write_text("{")
    assert "nothing to do" not in explain(*base, "--passes", 256).stderr
    next(out.glob("*.rise.abnormal.png")).unlink()
    assert "nothing to do" not in explain(*base, "--passes", 256).stderr
    assert next(read_records(out)).values(out).any()
    next(out.glob("*.overlay.png")).unlink()
    assert "nothing to do" not in explain(*base, "--passes", 256, "--sheet").stderr
    assert len(list(out.glob("*.overlay.png"))) == 1
    write_png(file, 3)
    assert "nothing to do" not in explain(*base, "--passes", 256).stderr
    assert "nothing to do" in explain(*base, "--passes", 256).stderr


def test_passes_of_an_earlier_run_are_not_counted_again(bright_model, write_png, tmp_path):
    first, second = (write_png(tmp_path / f"{seed}.png", seed) for seed in (3, 4))
    base = ["--out", tmp_path / "out", "--model", bright_model(), "--method", "rise", "--passes", 128]
    assert "1 maps of 1 images in 128 forward passes" in explain(first, *base).stderr
    assert "2 maps of 2 images in 128 forward passes" in explain(first, second, *base).stderr
    assert "2 maps of 2 images in 0 forward passes" in explain(first, second, *base).stderr


@pytest.mark.parametrize("verb", ["files", "sanity"])
def test_of_two_models_none_is_taken_in_silence(bright_model, write_png, tmp_path, verb):
    out = ["--out", str(tmp_path / "out")] if verb == "files" else []
    models = ["--model", str(bright_model()), "--model", str(bright_model(bias=2))]
    found = RUN.invoke(app, ["explain", verb, str(write_png(tmp_path / "a.png")), *out, *models])
    assert found.exit_code == 2
    assert "maps are of one model" in found.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_of_another_model_or_form_do_not_outlive_their_records(bright_model, write_png, tmp_path):
    file, out = write_png(tmp_path / "a.png", 4), tmp_path / "out"
    explain(file, "--out", out, "--model", bright_model(), "--method", "hirescam", "--method", "gradcam")
    together = {record.overlay for record in read_records(out)}
    explain(file, "--out", out, "--model", bright_model(), "--raw", "npy")
    named = {name for record in read_records(out) for name in (record.map, record.overlay)}
    assert together < named, "the other record still names the page of both"
    assert {path.name for path in out.iterdir() if not path.name.endswith(".map.json")} == named
    foreign = out / "notes.png"
    foreign.touch()
    path = next(out.glob("*.hirescam.*.map.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"overlay": foreign.name}))
    two = ("--method", "hirescam", "--method", "gradcam")
    explain(file, "--out", out, "--model", bright_model(bias=-100.0), *two)
    assert not any(record.map for record in read_records(out))
    assert foreign.is_file(), "a record cannot have a file deleted that is not of its image"
    left = {path.name for path in out.iterdir() if not path.name.endswith(".map.json")}
    assert left == {foreign.name, *(name for name in named if ".hirescam.abnormal.overlay" in name)}


def test_an_unknown_class_is_a_wrong_call(bright_model, write_png, tmp_path):
    files = [str(write_png(tmp_path / "a.png", 4)), "--out", str(tmp_path / "o"), "--model", str(bright_model())]
    found = RUN.invoke(app, ["explain", *files, "--of", "knee"])
    assert found.exit_code == 2
    assert "knee" in found.stderr


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(bright_model, write_png, tmp_path):
    good, bad = write_png(tmp_path / "in" / "a.png", 4), tmp_path / "in" / "b.png"
    bad.write_bytes(good.read_bytes()[:60])
    files = [str(tmp_path / "in"), "n" * 300]
    chosen = ["explain", *files, "--out", str(tmp_path / "o"), "--model", str(bright_model())]
    found = RUN.invoke(app, ["--quiet", *chosen])
    assert found.exit_code == 3
    assert found.stderr.startswith("not explained: image 2 of 3, b.png: ")
    assert "not explained: image 3 of 3, nnn" in found.stderr
    assert [Path(record.file).name for record in read_records(tmp_path / "o")] == ["a.png"]


def test_names_of_files_do_not_give_a_label_away(bright_model, write_png, tmp_path):
    file = write_png(tmp_path / "MURA-v1.1/valid/XR_HAND/patient00001/study1_positive/image1.png", 4)
    explain(file, "--out", tmp_path / "out", "--model", bright_model())
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(names) == 3
    assert not any("positive" in name for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"map": "../a.npy"}, "another folder"),
        ({"surprise": 1}, "not a record"),
        ({"schema": 99}, "schema"),
        ({"rows": "many"}, "field 'rows'"),
    ],
)
def test_records_that_are_none_are_refused(tmp_path, change, message):
    record = MapRecord("a.png", "s", "hand", 0.9, True, "rise", "abnormal", "x", map="a.npy", rows=2, columns=2)
    path = tmp_path / "a.map.json"
    record.write(path)
    assert MapRecord.read(path) == record
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        MapRecord.read(path)


def test_a_map_with_a_pickle_of_another_size_or_not_finite_is_refused(tmp_path):
    record = MapRecord("a.png", "s", "hand", 0.9, True, "rise", "abnormal", "x", map="a.npy", rows=2, columns=2)
    gap = np.array([[1, np.inf], [0, 2]]), np.array([[1, 2], [np.nan, 0]], np.float16), np.full((2, 2), 1e300)
    for values in (np.array([{}, {}, {}, {}], object).reshape(2, 2), np.zeros((3, 2)), *gap):
        np.save(tmp_path / "a.npy", values, allow_pickle=True)
        with pytest.raises(DataError, match=r"a\.npy"):
            record.values(tmp_path)


@pytest.mark.parametrize(
    ("learned", "of", "other"), [("joint", "abnormal", "joint"), ("abnormality", "wrist", "abnormal")]
)
def test_what_a_model_did_not_learn_is_not_explained(bright_model, write_png, tmp_path, learned, of, other):
    write_png(tmp_path / "a.png", 4)
    model, out = tmp_path / "one.onnx", tmp_path / "maps"
    contract = read_contract(bright_model())
    contract = dataclasses.replace(contract, provenance=Provenance(protocol={"tasks": learned}))
    write_metadata(bright_model(), METADATA_KEY, contract.to_json(), model)
    arguments = [str(tmp_path / "a.png"), "--model", str(model), "--out", str(out)]
    with pytest.raises(ModelError, match=f"did not learn .*with: mskscreen explain --of {other}"):
        RUN.invoke(app, ["explain", *arguments, "--of", of], catch_exceptions=False)
    assert not out.exists()
    explain(*arguments, "--of", other)
    (record,) = read_records(out)
    assert record.map
    assert (record.joint is None, record.p_abnormal is None) == (learned == "abnormality", learned == "joint")
