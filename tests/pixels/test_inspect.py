"""`mskscreen inspect`: the record of each file, and exit codes."""

import json

import pytest
from typer.testing import CliRunner

from mskscreen.cli.main import app


@pytest.fixture
def files(make_dicom, file_bytes, ramp, tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad.png"
    good.write_bytes(file_bytes(make_dicom(ramp, PhotometricInterpretation="MONOCHROME1")))
    bad.write_bytes(b"no image")
    return str(good), str(bad)


def test_json_holds_the_record_and_the_error_of_each_file(files):
    result = CliRunner().invoke(app, ["inspect", *files, "--format", "json"])
    good, bad = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (good["file"], good["photometric"], good["inverted"], good["error"]) == (
        files[0],
        "MONOCHROME1",
        True,
        None,
    )
    assert "bad.png" in bad["error"]
    assert "SECRET" not in result.stdout.upper()


def test_exit_codes(files):
    assert CliRunner().invoke(app, ["inspect", files[0]]).exit_code == 0
    assert CliRunner().invoke(app, ["inspect", files[1]]).exit_code == 3
    assert CliRunner().invoke(app, ["inspect"]).exit_code == 2
    assert CliRunner().invoke(app, ["inspect", files[0], "--format", "xml"]).exit_code == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"PixelSpacing": [0.1, 0.12], "ImagerPixelSpacing": [0.2, 0.2]},
            "PixelSpacing 0.1 x 0.12 mm; ImagerPixelSpacing 0.2 x 0.2 mm; ruler of 0.12 mm, calibrated",
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.2]},
            "ImagerPixelSpacing 0.2 x 0.2 mm; ruler of 0.2 mm, at the detector",
        ),
        ({"PixelSpacing": [0, 0]}, "PixelSpacing 0 x 0 mm; no ruler"),
        ({"PixelSpacing": 0.1}, "PixelSpacing is not usable; no ruler"),
        ({}, None),
    ],
)
def test_the_spacings_and_the_choice_between_them_are_told(make_dicom, file_bytes, ramp, tmp_path, fields, said):
    (tmp_path / "a").write_bytes(file_bytes(make_dicom(ramp, **fields)))
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "a"), "--format", "json"])
    assert json.loads(result.stdout)[0]["spacing"] == said


def test_table_names_what_was_done(files):
    assert "MONOCHROME1" in CliRunner().invoke(app, ["inspect", files[0]]).stdout
