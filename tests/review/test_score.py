"""Scores of readers whose answers are known, forms that are wrong, and both commands from end to end."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.errors import DataError
from mskscreen.review.forms import read_forms
from mskscreen.review.protocol import AIDED, CALLS, JUDGEMENTS, UNAIDED, Key, View, images_digest, open_pack
from mskscreen.review.score import ALL, MODEL, score


@pytest.fixture(scope="module")
def opened(pack):
    return open_pack(pack, pack.with_name("pack.key.json"))[0]


def figures(rows, who, of):
    return next(row for row in rows if (row.who, row.of) == (who, of)).figures


def scored(opened, pack, fill, folder, answer):
    return score(opened, read_forms(fill(pack, folder, answer), opened), resamples=60, seed=0)


def around(x, y, view):
    """A box of the pixels of a view that are next to a point."""
    return f"1 {max(x - 1, 0)} {max(y - 1, 0)} {min(x + 1, view.columns)} {min(y + 1, view.rows)}"


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
        x, y = case.views[0].peak or (25, 20)
        box = around(x, y, case.views[0])
        if reader == "reader-3":
            box = around((x + 25) % 50, y, case.views[0])
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


def test_chance_within_a_reader_is_that_of_the_repeated_cases(opened, pack, fill, tmp_path):
    first, second = {s.case for s in opened.showings.values() if s.repeat}

    def answer(reader, phase, code):
        showing = opened.showings[code]
        if showing.case == second:
            return {"call": CALLS[showing.repeat]}
        return {"call": CALLS[showing.case != first]}

    found = figures(scored(opened, pack, fill, tmp_path, answer).within, "reader-1", f"call, {UNAIDED}")
    # One answer of four is abnormal: 2 x 1/4 x 3/4 agree by guessing; the six other cases are all called abnormal.
    assert found["agreement"].value == 1 / 2
    assert found["ac1"].value == pytest.approx((1 / 2 - 3 / 8) / (1 - 3 / 8))


def test_pointing_is_judged_by_the_boxes_of_each_reader_beside_a_random_point(opened, pack, fill, tmp_path):
    found = scored(opened, pack, fill, tmp_path, answering(opened))
    mapped = [case.label for case in opened.cases if case.views[0].mapped]
    assert set(mapped) == {0, 1}
    assert sum(case.views[0].mapped for case in opened.cases) < len(opened.cases)
    # With aid readers 1 and 2 box the abnormal cases at the peak, reader 3 the normal ones far from it.
    for who, cases, hit in (("reader-1", mapped.count(1), 1), ("reader-3", mapped.count(0), 0)):
        row = next(row for row in found.pointing if (row.who, row.of) == (who, f"boxes, {AIDED}"))
        assert (row.cases, row.figures["map"].value) == (cases, hit)
        assert 2 * 2 / (40 * 50) < row.figures["random point"].value < 6 * 6 / (40 * 50)
    assert figures(found.pointing, ALL, f"boxes, {AIDED}")["map"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize(("gap", "hit"), [(0, 1), (1, 1), (2, 0)])
def test_a_peak_within_three_percent_of_the_long_side_of_a_box_is_a_hit(opened, pack, fill, tmp_path, gap, hit):
    view = View("a.png", 40, 50, (20.0, 30.0))
    cases = tuple(replace(case, views=(view,)) for case in opened.cases)
    answer = {"call": "abnormal", "box": f"1 {20 + gap} 28 {25 + gap} 33"}
    found = scored(replace(opened, cases=cases), pack, fill, tmp_path, lambda *_: answer)
    chance = found.pointing[0].figures["random point"].value
    assert found.pointing[0].figures["map"].value == hit
    # All whole pixels within 1.5 of the box of 6 x 6: a frame of one pixel around it, with its corners.
    assert chance == 8 * 8 / (40 * 50)


def test_judgements_are_of_cases_with_a_map_and_split_by_call_and_truth(opened, pack, fill, tmp_path):
    maps = [any(view.mapped for view in case.views) for case in opened.cases]
    assert not all(maps)

    def answer(reader, phase, code):
        return {"map": JUDGEMENTS[0 if opened.cases[opened.showings[code].case].label else 2]}

    found = scored(opened, pack, fill, tmp_path, answer)
    shown = [maps[showing.case] for showing in opened.showings.values() if showing.phase == AIDED]
    assert found.mapless == 3 * shown.count(False)
    rows = {row.of: row for row in found.maps}
    assert rows["map"].cases == sum(maps)
    assert rows["map, truly abnormal"].figures["agree"].value == 1
    assert rows["map, truly normal"].figures["disagree"].value == 1
    for of in ("called", "truly"):
        parts = [row.cases for name, row in rows.items() if name.startswith(f"map, {of}")]
        assert sum(parts) == sum(maps)


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
        ("box", "1 1 1 51 9", "box .* leaves view 1 of 50 x 40 pixels"),
        ("box", "1 1 -1 5 9", "box .* leaves view 1 of 50 x 40 pixels"),
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


@pytest.mark.parametrize("between", [b";", b"\t"])
def test_a_form_saved_by_a_spreadsheet_with_semicolons_or_tabs_is_the_same(opened, pack, fill, tmp_path, between):
    forms = fill(pack, tmp_path, answering(opened))
    before = read_forms(forms, opened)
    for form in forms:
        form.write_bytes(b"\xef\xbb\xbf" + form.read_bytes().replace(b",", between))
    assert read_forms(forms, opened) == before


def test_a_form_with_a_second_column_for_boxes_is_refused(opened, pack, fill, tmp_path):
    form, *_ = fill(pack, tmp_path, lambda *_: {"call": "abnormal", "box": "1 1 1 9 9"})
    form.write_text("".join(f"{line},box\n" for line in form.read_text().splitlines()))
    with pytest.raises(DataError, match=r"two columns are named 'box'; keep one"):
        read_forms([form], opened)


@pytest.mark.parametrize("between", [",", ";"])
def test_a_cell_beyond_the_columns_is_named_and_not_lost(opened, pack, fill, tmp_path, between):
    form, *_ = fill(pack, tmp_path, lambda *_: {"call": "abnormal", "box": "1 1 1 9 9"})
    head, first, *rest = form.read_text().replace(",", between).splitlines()
    form.write_text("\n".join([head + between, first + between * 2, *rest]))
    assert len(read_forms([form], opened)) == 10
    form.write_text("\n".join([head + between, f"{first}{between}2 2 2 8 8", *rest]))
    with pytest.raises(DataError, match=r"csv: line 2: '2 2 2 8 8' stands in no column.*parted by ;"):
        read_forms([form], opened)


def test_all_that_is_wrong_in_a_form_is_said_at_once(opened, pack, fill, tmp_path):
    first, *_ = fill(pack, tmp_path, lambda *_: {"call": "maybe"})
    with pytest.raises(DataError) as caught:
        read_forms([first], opened)
    assert [f"line {line}: call 'maybe'" in str(caught.value) for line in range(1, 13)] == [
        False,
        *[True] * 10,
        False,
    ]
    assert str(caught.value).count(str(first)) == 1


def test_what_spreadsheets_make_of_a_form_and_a_folder_of_forms_are_the_same(opened, pack, fill, tmp_path):
    forms = fill(pack, tmp_path, answering(opened))
    before = read_forms(forms, opened)
    for form in forms:
        head, *rows = form.read_text().replace(",5,", ",5.0,").splitlines()
        rows[1] = (
            rows[1].replace("reader-", "Reader-").replace(",unaided,", ",Unaided,").replace(",aided,", ",Aided,")
        )
        rows[2] = rows[2].lower()
        empty = "," * head.count(",")
        form.write_text(
            "\n".join([head.title().replace("Call", " Call "), rows[0], empty, "", *rows[1:], empty, ""])
        )
    assert read_forms([tmp_path], opened) == before
    with pytest.raises(DataError, match="holds no CSV"):
        read_forms([pack / "aided"], opened)


def test_a_form_of_which_rows_are_missing_is_seen(opened, pack, fill, tmp_path):
    forms = fill(pack, tmp_path, answering(opened))
    short = next(form for form in forms if form.name == f"reader-2-{AIDED}.csv")
    short.write_text("".join(short.read_text().splitlines(keepends=True)[:6]))
    found = score(opened, read_forms(forms[:-1], opened), resamples=2, seed=0)
    counts = {(row.reader, row.phase): (row.answered, row.expected) for row in found.returned}
    assert counts.pop(("reader-2", AIDED)) == (5, 10)
    assert counts.pop(("reader-3", UNAIDED)) == (0, 10)
    assert set(counts.values()) == {(10, 10)}


def test_readers_come_in_the_order_of_the_protocol(opened, pack, fill, tmp_path):
    names = [f"reader-{number}" for number in (1, 2, 10)]
    renamed = replace(opened, protocol={**opened.protocol, "readers": names})
    forms = fill(pack, tmp_path, answering(opened))
    for form in forms:
        form.write_text(form.read_text().replace("reader-3", "reader-10"))
    found = score(renamed, read_forms(forms, renamed), resamples=2, seed=0)
    assert list(dict.fromkeys(row.who for row in found.accuracy)) == [MODEL, *names, ALL]


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_model_without_a_map_makes_no_aided_phase_and_says_so(study, tiny_model, tiny_contract, fill, tmp_path):
    model = tiny_model(tmp_path / "m.onnx", drop=("map",), contract=tiny_contract(map=None))
    run("predict", study.root, "--model", model, "-o", tmp_path / "p.json")
    pack = tmp_path / "pack"
    made = run("review", "pack", tmp_path / "p.json", "--cases", 6, "--out", pack, "--model", model)
    assert "the pack has no aided phase" in " ".join(made.stderr.split())
    assert sorted(path.name for path in pack.iterdir()) == ["README.txt", UNAIDED]
    assert "there is no aided phase" in (pack / "README.txt").read_text()
    forms = fill(pack, tmp_path / "back", lambda *_: {"call": "normal"})
    value = json.loads(run("review", "score", pack, *forms, "--format", "json").stdout)
    assert {row["of"] for row in value["accuracy"]} == {"alone", UNAIDED}


def test_both_commands_from_a_table_to_the_figures(study, model, fill, tmp_path, monkeypatch):
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
    shown = run("review", "score", tmp_path / "pack", *forms)
    assert f"{value['between'][0]['figures']['ac1']['value']:.3f}" in shown.stdout
    assert value["mapless"] > 0
    assert f"left out: {value['mapless']} answers about a map where none was shown" in shown.stderr
    for inside, name in (("pack", "."), ("pack/aided", "..")):
        monkeypatch.chdir(tmp_path / inside)
        assert json.loads(run("review", "score", name, *forms, "--format", "json").stdout) == value
    with pytest.raises(DataError, match="is there already and is not this pack"):
        run(*ask[:6], ".", *ask[7:])
