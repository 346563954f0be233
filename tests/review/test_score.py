"""Scores of readers whose answers are known, forms that are wrong, and both commands from end to end."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.errors import DataError
from mskscreen.review.forms import read_forms
from mskscreen.review.protocol import AIDED, CALLS, JUDGEMENTS, UNAIDED, Key, images_digest, open_pack
from mskscreen.review.score import ALL, MODEL, score


@pytest.fixture(scope="module")
def opened(pack):
    return open_pack(pack, pack.with_name("pack.key.json"))[0]


def figures(rows, who, of):
    return next(row for row in rows if (row.who, row.of) == (who, of)).figures


def scored(opened, pack, fill, folder, answer):
    return score(opened, read_forms(fill(pack, folder, answer), opened), resamples=60, seed=0)


def answering(opened):
    """Reader 1 is right; reader 2 is right with aid and calls all normal without; reader 3 is always wrong."""

    def answer(reader, phase, code):
        case = opened.cases[opened.showings[code].case]
        call = case.label
        if reader == "reader-2" and phase == UNAIDED:
            call = 0
        if reader == "reader-3":
            call = 1 - case.label
        judgement = "agree" if reader == "reader-1" else "disagree" if opened.showings[code].repeat else "partly"
        x, y = case.views[0].peak or (0, 0)
        box = f"1 {x - 1} {y - 1} {x + 1} {y + 1}" if reader != "reader-3" else f"1 {x + 1} {y} {x + 3} {y + 2}"
        return {"call": CALLS[call].upper(), "confidence": "5", "map": judgement, "box": box if call else ""}

    return answer


def test_known_readers_get_known_figures(opened, pack, fill, tmp_path):
    found = scored(opened, pack, fill, tmp_path, answering(opened))

    def values(who, of):
        return {name: estimate.value for name, estimate in figures(found.accuracy, who, of).items()}

    assert values("reader-1", UNAIDED) == {"sensitivity": 1, "specificity": 1, "auroc": 1}
    assert values("reader-2", UNAIDED) == {"sensitivity": 0, "specificity": 1, "auroc": 0.5}
    assert values("reader-3", AIDED) == {"sensitivity": 0, "specificity": 0, "auroc": 0}
    difference = values(ALL, f"{AIDED} - {UNAIDED}")
    assert difference == pytest.approx({"sensitivity": 1 / 3, "specificity": 0, "auroc": 0.5 / 3})
    model = np.array([case.p_abnormal >= opened.threshold for case in opened.cases])
    truth = np.array([case.label == 1 for case in opened.cases])
    assert values(MODEL, "alone")["sensitivity"] == model[truth].mean()
    aided = figures(found.between, ALL, f"call, {AIDED}")
    assert aided["agreement"].value == pytest.approx(1 / 3)
    assert aided["cohen"].value == pytest.approx(-1 / 3)


def test_repeats_count_within_a_reader_only(opened, pack, fill, tmp_path):
    found = scored(opened, pack, fill, tmp_path, answering(opened))
    assert figures(found.within, "reader-1", "map")["agreement"].value == 1
    assert figures(found.within, "reader-2", "map")["agreement"].value == 0
    shares = {name: estimate.value for name, estimate in figures(found.maps, ALL, "map").items()}
    assert shares == pytest.approx({"agree": 1 / 3, "partly": 2 / 3, "disagree": 0, "uninterpretable": 0})
    assert tuple(shares) == JUDGEMENTS


def test_pointing_is_judged_by_the_boxes_and_beside_a_random_point(opened, pack, fill, tmp_path):
    found = scored(opened, pack, fill, tmp_path, answering(opened))
    peaked = [case.views[0].peak is not None for case in opened.cases]
    assert all(peaked)
    # With aid readers 1 and 2 box the four abnormal cases at the peak, reader 3 the four normal ones beside it.
    aided = figures(found.pointing, ALL, f"boxes, {AIDED}")
    assert aided["map"].value == pytest.approx(8 / 12)
    assert aided["random point"].value == pytest.approx(4 / (40 * 50))


def test_one_reader_and_missing_answers_are_no_obstacle(opened, pack, fill, tmp_path):
    known = answering(opened)
    skipped = next(code for code, s in opened.showings.items() if s.phase == UNAIDED and not s.repeat)

    def answer(reader, phase, code):
        return known(reader, phase, code) if reader == "reader-1" and phase == UNAIDED and code != skipped else {}

    found = scored(opened, pack, fill, tmp_path, answer)
    assert {row.who for row in found.accuracy} == {MODEL, "reader-1"}
    assert next(row for row in found.accuracy if row.who == "reader-1").cases == 7
    assert not any("-" in row.of for row in found.accuracy)
    assert found.between[0].figures["fleiss"].value is None
    assert found.maps == ()
    with pytest.raises(DataError, match="no form holds an answer"):
        scored(opened, pack, fill, tmp_path, lambda *_: {})


def test_aid_is_judged_on_the_cases_that_a_reader_answered_in_both_phases(opened, pack, fill, tmp_path):
    hardest = next(k for k, case in enumerate(opened.cases) if case.label == 1)

    def answer(reader, phase, code):
        showing = opened.showings[code]
        if reader != "reader-1" or (showing.case == hardest and phase == AIDED):
            return {}
        truth = opened.cases[showing.case].label
        return {"call": CALLS[0 if showing.case == hardest else truth], "confidence": "3"}

    found = scored(opened, pack, fill, tmp_path, answer)
    assert figures(found.accuracy, "reader-1", UNAIDED)["sensitivity"].value == 3 / 4
    row = next(row for row in found.accuracy if row.of == f"{AIDED} - {UNAIDED}")
    assert row.cases == 7
    assert {name: e.value for name, e in row.figures.items()} == dict.fromkeys(row.figures, 0)
    assert all(e.interval in (None, (0, 0)) for e in row.figures.values())


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("call", "maybe", "call 'maybe' is none of normal, abnormal"),
        ("confidence", "6", "confidence '6'"),
        ("box", "1 5 5 5 9", "box .* names no view of the case or is empty"),
        ("box", "7 1 1 5 9", "box .* names no view"),
        ("box", "1 nan 1 5 9", "box .* names no view of the case or is empty"),
        ("box", "left knee", "box .* is not VIEW LEFT TOP RIGHT BOTTOM"),
        ("reader", "somebody", "reader 'somebody' is not in the protocol"),
        ("case", "XXXX", "case 'XXXX' is not in this phase"),
    ],
)
def test_a_wrong_cell_is_named_by_file_line_and_field(opened, pack, fill, tmp_path, column, text, message):
    forms = fill(pack, tmp_path, lambda *_: {column: text})
    with pytest.raises(DataError, match=rf"csv: line 2: {message}"):
        read_forms(forms, opened)


def test_a_form_saved_by_a_spreadsheet_with_semicolons_is_the_same(opened, pack, fill, tmp_path):
    forms = fill(pack, tmp_path, answering(opened))
    before = read_forms(forms, opened)
    for form in forms:
        form.write_bytes(b"\xef\xbb\xbf" + form.read_bytes().replace(b",", b";"))
    assert read_forms(forms, opened) == before


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_both_commands_from_a_table_to_the_figures(study, model, fill, tmp_path):
    table = tmp_path / "p.json"
    run("predict", study.root, "--model", model, "-o", table)
    ask = ("review", "pack", table, "--cases", 6, "--out", tmp_path / "pack", "--model", model, "--seed", 1)
    made = run(*ask)
    assert "research use, not for diagnosis" in made.stderr
    assert "nothing to do" in run(*ask).stderr
    drawn = (*ask[:6], tmp_path / "drawn", *ask[7:9])
    run(*drawn)
    assert "nothing to do" in run(*drawn).stderr
    seed = Key.read(tmp_path / "drawn.key.json").seed
    run(*ask[:6], tmp_path / "again", *ask[7:-1], seed)
    pictures = [images_digest(tmp_path / name) for name in ("drawn", "again", "pack")]
    assert pictures[0] == pictures[1] != pictures[2]
    assert not any(str(seed).encode() in f.read_bytes() for f in (tmp_path / "drawn").rglob("*.*"))
    with pytest.raises(DataError, match="is there already and is not this pack"):
        run(*ask[:4], 8, *ask[5:])
    with pytest.raises(DataError, match="is the key of another pack"):
        run(*ask[:6], tmp_path / "second", *ask[7:], "--key", tmp_path / "pack.key.json")
    key = open_pack(tmp_path / "pack", tmp_path / "pack.key.json")[0]
    forms = fill(tmp_path / "pack", tmp_path / "back", answering(key))
    value = json.loads(run("review", "score", tmp_path / "pack", *forms, "--format", "json").stdout)
    assert value["protocol_sha256"] in made.stderr
    shown = run("review", "score", tmp_path / "pack", *forms).stdout
    assert f"{value['between'][0]['figures']['ac1']['value']:.3f}" in shown
