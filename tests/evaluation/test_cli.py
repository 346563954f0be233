"""The commands: files in, table or JSON on stdout, everything else on stderr, refusals in one sentence."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.contract import Gate, Provenance, gate_key
from mskscreen.errors import DataError
from mskscreen.inference.catalogue import read_contract

from .conftest import CONTRACT, make_predictions, write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli")
    make_predictions(80, errors=1).write(path / "a.json")
    make_predictions(80, quality=1.0, errors=1).write(path / "b.parquet")
    make_predictions(60).write(path / "fewer.json")
    make_predictions(150, seed=3, first_patient=9000, scale=2).write(path / "dev.json")
    write_tiny_model(path / "model.onnx")
    return path


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_evaluate_prints_joints_average_and_all(folder):
    result = run("evaluate", folder / "a.json", "--resamples", 30)
    for word in ("humerus", "shoulder", "all", "kappa"):
        assert word in result.stdout
    assert "left out: not scored" in result.stderr
    assert "not for diagnosis" in result.stderr


def test_evaluate_json_and_report_agree(folder, tmp_path):
    report = tmp_path / "out.html"
    result = run(
        *("evaluate", folder / "a.json", "--dev", folder / "dev.json", "--resamples", 30),
        *("--prevalence", 0.1, "--miss-cost", 4, "--at", "cost", "--format", "json", "--report", report),
    )
    value = json.loads(result.stdout)
    assert set(value["study"]["points"]) == {"balanced", "sensitive", "specific", "cost"}
    assert value["study"]["threshold"] == value["study"]["points"]["cost"]["threshold"]
    assert f"{value['study']['overall']['abnormality']['auroc']['value']:.3f}" in report.read_text()
    said = run(
        *("evaluate", folder / "a.json", "--dev", folder / "dev.json", "--resamples", 30, "--prevalence", 0.1)
    ).stderr
    projected = value["study"]["points"]["balanced"]["projected"]["ppv"]["value"]
    assert f"at a prevalence of 10.0%: ppv {projected:.3f} (" in said
    assert list(tmp_path.iterdir()) == [report]


def test_training_studies_prove_that_patients_are_disjoint(folder, tmp_path):
    rows = make_predictions(50, seed=8, first_patient=4000, split="train").images
    lines = {f"{row.file.rsplit('/', 1)[0]}/,{int('positive' in row.file)}" for row in rows}
    (tmp_path / "train.csv").write_text("\n".join(sorted(lines)))
    report = tmp_path / "r.html"
    run(*("evaluate", folder / "a.json", "--train", tmp_path / "train.csv", "--resamples", 5, "--report", report))
    page = report.read_text()
    assert "Disjoint by patient" in page
    assert "0 of the 50 training studies are evaluated" in page
    lines = {f"{row.file.rsplit('/', 1)[0]}/,1" for row in make_predictions(3)}
    (tmp_path / "train.csv").write_text("\n".join(sorted(lines)))
    with pytest.raises(DataError, match=r"3 studies are in both train\.csv and a\.json"):
        run("evaluate", folder / "a.json", "--train", tmp_path / "train.csv", "--resamples", 5)


def test_the_same_table_for_both_is_refused(folder):
    with pytest.raises(DataError, match="studies are in both"):
        run("evaluate", folder / "a.json", "--dev", folder / "a.json", "--resamples", 10)


def test_compare_prints_tests_and_refuses_other_studies(folder):
    result = run("compare", folder / "a.json", folder / "b.parquet", "--resamples", 30)
    twice = run("compare", folder / "a.json", folder / "a.json")
    assert twice.exit_code == 2
    assert "is named twice" in " ".join(twice.stderr.replace("│", "").split())
    for word in ("DeLong", "McNemar", "Permutation", "p, Holm", "b - a"):
        assert word in result.stdout
    assert "not for diagnosis" in result.stderr
    value = json.loads(
        run("compare", folder / "a.json", folder / "b.parquet", "--resamples", 10, "--format", "json").stdout
    )
    assert value["pairs"][0]["differences"]["auroc"]["value"] < 0
    with pytest.raises(DataError, match="hold different studies"):
        run("compare", folder / "a.json", folder / "fewer.json")


def test_calibrate_then_evaluate_with_the_points_of_the_model(folder, tmp_path):
    out = tmp_path / "calibrated.onnx"
    passed = {gate_key("openvino", name, machine): Gate(True) for name, machine in (("bf16", "a"), ("int8", "b"))}
    model = write_tiny_model(tmp_path / "model.onnx", dataclasses.replace(CONTRACT, approved=passed))
    result = run("calibrate", folder / "dev.json", "--model", model, "--out", out, "--format", "json")
    assert f"mskscreen export {out} --precision bf16,int8 --calibration MANIFEST --gate MANIFEST" in result.stderr
    points = {row["point"]: row["threshold"] for row in json.loads(result.stdout)}
    assert read_contract(out).operating_points == points
    found = run("evaluate", folder / "a.json", "--model", out, "--resamples", 20, "--format", "json")
    assert {k: v["threshold"] for k, v in json.loads(found.stdout)["study"]["points"].items()} == points
    with pytest.raises(DataError, match="was calibrated on exactly these studies"):
        run("evaluate", folder / "dev.json", "--model", out, "--resamples", 20)


@pytest.mark.parametrize(
    ("quality", "scale", "bound"), [(1.6, 1, None), (60, 1, 0.05), (-3, 1, 20), (1, 0.01, 0.05)]
)
def test_calibrate_warns_of_a_temperature_at_the_bound_of_its_search(folder, tmp_path, quality, scale, bound):
    out = tmp_path / "out.onnx"
    make_predictions(150, quality=quality, scale=scale).write(tmp_path / "dev.json")
    result = run("calibrate", tmp_path / "dev.json", "--model", folder / "model.onnx", "--out", out)
    found = read_contract(out).calibration.abnormality_temperature
    if bound is None:
        assert "warning" not in result.stderr
        assert 0.05 < found < 20
    else:
        assert f"warning: the abnormality temperature is at the bound of its search, {bound:g}: " in result.stderr
        assert found == bound


def test_codalab_is_written_and_evaluated(folder, tmp_path):
    out = tmp_path / "submission.csv"
    run("evaluate", folder / "fewer.json", "--codalab", out, "--resamples", 10)
    assert len(out.read_text().splitlines()) == 60
    value = json.loads(run("evaluate", out, "--resamples", 10, "--format", "json").stdout)
    found = value["study"]["overall"]["abnormality"]
    assert found["kappa"]["value"] is not None
    assert found["auroc"] == {"value": None, "intervals": {}, "reason": "the table holds calls, not probabilities"}


def test_the_protocol_of_mura_is_one_command(folder, tmp_path):
    studies = sorted({row.study for row in make_predictions(60)})
    lines = [f"{study},{i % 2},{(i // 2) % 2},{i % 3 // 2},{i % 2}" for i, study in enumerate(studies)]
    readers = tmp_path / "readers.csv"
    readers.write_text("study,r1,r2,r3,r4\n" + "\n".join(lines))
    arguments = (
        "evaluate",
        folder / "fewer.json",
        "--readers",
        readers,
        "--reference",
        "r1,r2,r3",
        "--resamples",
        20,
    )
    found = json.loads(run(*arguments, "--format", "json").stdout)
    assert found["study"]["overall"]["cases"] == 60
    rows = found["agreement"]
    assert {row["one"] for row in rows} == {"model", "r4"}
    assert {row["joint"] for row in rows} >= {"all", "hand", "wrist"}
    printed = run(*arguments).stdout
    assert "Cohen's kappa by study" in printed
    assert "Abnormality by study" in printed
    # The hidden test has no labels in its names: the readers are the truth.
    text = (folder / "fewer.json").read_text().replace("_positive/", "/").replace("_negative/", "/")
    (tmp_path / "hidden.json").write_text(text)
    hidden = run(*("evaluate", tmp_path / "hidden.json"), *arguments[2:], "--format", "json").stdout
    assert json.loads(hidden) == {"agreement": rows}
    report = tmp_path / "with-readers.html"
    result = run(*arguments, "--report", report)
    assert "Abnormality by study" in result.stdout
    page = report.read_text().split('id="readers"')[1]
    kappa = next(row["kappa"] for row in rows if row["one"] == "model" and row["joint"] == "all")
    assert f"{kappa['value']:.3f}" in page
    assert "majority of r1, r2, r3" in page


def test_readers_are_compared_with_the_calls_that_the_report_judges(folder, tmp_path):
    studies = sorted({row.study for row in make_predictions(60)})
    readers = tmp_path / "readers.csv"
    readers.write_text("study,r1\n" + "\n".join(f"{study},{i % 2}" for i, study in enumerate(studies)))
    arguments = ("evaluate", folder / "fewer.json", "--readers", readers, "--resamples", 5, "--format", "json")
    at = json.loads(run(*arguments, "--model", folder / "model.onnx", "--at", "sensitive").stdout)
    assert at["study"]["threshold"] == 0.3
    table = json.loads((folder / "fewer.json").read_text())
    table["model"]["threshold"] = 0.3
    for row in table["images"]:
        row["abnormal"] = row["p_abnormal"] >= 0.3
    (tmp_path / "low.json").write_text(json.dumps(table))
    low = json.loads(run("evaluate", tmp_path / "low.json", *arguments[2:]).stdout)
    assert at["agreement"] == low["agreement"] != json.loads(run(*arguments).stdout)["agreement"]


def test_an_option_that_would_be_passed_over_is_refused(folder, tmp_path):
    text = (folder / "fewer.json").read_text().replace("_positive/", "/").replace("_negative/", "/")
    (tmp_path / "hidden.json").write_text(text)
    (tmp_path / "readers.csv").write_text("study,r1\na,1\n")
    out = tmp_path / "calls.csv"
    model = ("--model", folder / "model.onnx", "--at", "sensitive")
    for arguments, said in (
        ((folder / "a.json", "--prevalence", 0.1), "leave out --prevalence: of no use without --dev or --model"),
        ((folder / "a.json", "--codalab", out, *model), "leave out --at: of no use with --codalab"),
        ((tmp_path / "hidden.json", "--readers", tmp_path / "readers.csv", *model), "of no use without a truth"),
    ):
        refused = run("evaluate", *arguments)
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.replace("│", "").split())
    assert not out.exists()


def test_card_is_markdown_on_stdout(folder):
    assert run("card", folder / "model.onnx").stdout.startswith(f"# Model card: {CONTRACT.name}\n")


def test_no_text_of_a_contract_ends_its_place_in_the_card(tmp_path):
    hostile = "a\n# b\n<script>c</script> [d](e) `f` | g"
    made = Provenance(
        data=hostile, licence=hostile, notes=hostile, versions={hostile: hostile}, protocol={hostile: hostile}
    )
    contract = dataclasses.replace(
        CONTRACT,
        name=hostile,
        architecture=hostile,
        intended_use=hostile,
        provenance=made,
        operating_points={"balanced": 0.5, hostile: 0.4},
    )
    path = tmp_path / "model.onnx"
    write_tiny_model(path, contract)
    card = run("card", path).stdout
    assert card.count("script") >= 8
    assert not re.search(r"(?<!\\)[<\[]|^# b|(?<!\\)`f", card, re.MULTILINE)


def test_a_card_replaces_cards_and_nothing_else(folder, tmp_path):
    out = tmp_path / "card.md"
    for _ in range(2):
        done = run("card", folder / "model.onnx", "--out", out)
        assert (done.stdout, done.stderr) == ("", f"{out}: written\n")
        assert out.read_text().startswith("# Model card: ")
    out.write_text("# My thesis\n")
    refused = run("card", folder / "model.onnx", "--out", out)
    assert refused.exit_code == 2
    assert out.read_text() == "# My thesis\n"


def test_evaluating_needs_neither_torch_nor_scipy_nor_pandas(folder):
    code = (
        "import sys; from mskscreen.cli.main import app\n"
        f"table, report = {str(folder / 'a.json')!r}, {str(folder / 'r.html')!r}\n"
        "app(['evaluate', table, '--resamples', '5', '--report', report], standalone_mode=False)\n"
        "print({'torch', 'scipy', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.endswith("set()\n")


def test_what_was_not_learned_is_not_judged(folder, tmp_path):
    contract = dataclasses.replace(CONTRACT, provenance=Provenance(protocol={"tasks": "joint"}))
    table, report = tmp_path / "joint.json", tmp_path / "joint.html"
    make_predictions(150, contract=contract).write(table)
    result = run("evaluate", table, "--resamples", 30, "--report", report)
    assert "Joint type by study" in result.stdout
    assert "AUROC, abnormality" not in result.stdout
    assert "kappa" not in result.stdout
    assert "abnormality: the model did not learn abnormality\njoint type: accuracy " in result.stderr
    page = report.read_text()
    assert "The model did not learn abnormality." in page
    assert "is called abnormal" not in page
    write_tiny_model(tmp_path / "joint.onnx", contract)
    for command in (
        ("compare", folder / "a.json", table),
        ("evaluate", table, "--codalab", tmp_path / "calls.csv"),
        ("evaluate", table, "--dev", folder / "dev.json", "--calibration", "isotonic"),
    ):
        with pytest.raises(DataError, match=r"joint\.json: the model did not learn abnormality, which "):
            run(*command)
    (tmp_path / "e.json").write_text(run("evaluate", table, "--resamples", 30, "--format", "json").stdout)
    card = run("card", tmp_path / "joint.onnx", "--evaluation", tmp_path / "e.json").stdout
    assert "there are no operating points" in card
    assert "Accuracy of joint types: 0.9" in card
    assert not re.search("balanced|sensitive|called abnormal|normal, abnormal", card, re.IGNORECASE)


def test_of_a_model_that_learned_joints_alone_only_their_temperature_is_fitted(tmp_path):
    contract = dataclasses.replace(CONTRACT, provenance=Provenance(protocol={"tasks": "joint"}))
    table, out = tmp_path / "joint.json", tmp_path / "out.onnx"
    make_predictions(150, contract=contract).write(table)
    model = write_tiny_model(tmp_path / "joint.onnx", contract)
    result = run("calibrate", table, "--model", model, "--out", out)
    assert result.stdout == ""
    before, after = map(float, re.findall(r"log loss ([\d.]+), ECE [\d.]+ \(joint type", result.stderr))
    assert after < before
    updated = read_contract(out)
    assert updated.calibration.joint_temperature != 1
    assert updated.calibration.abnormality_temperature == 1
    assert updated.operating_points == contract.operating_points
    make_predictions(150, contract=updated).write(tmp_path / "again.json")
    with pytest.raises(DataError, match="was calibrated on exactly these studies"):
        run("evaluate", tmp_path / "again.json", "--model", out, "--resamples", 20)


def test_joints_alone_are_judged_at_the_temperature_of_development_studies(tmp_path):
    contract = dataclasses.replace(CONTRACT, provenance=Provenance(protocol={"tasks": "joint"}))
    table, dev, report = tmp_path / "joint.json", tmp_path / "dev.json", tmp_path / "joint.html"
    make_predictions(150, contract=contract).write(table)
    make_predictions(150, seed=3, first_patient=9000, contract=contract).write(dev)
    evaluated = ("evaluate", table, "--dev", dev, "--resamples", 5, "--format", "json", "--report", report)
    before, after = (
        json.loads(run(*evaluated, "--calibration", how).stdout)["study"]["joint"]
        for how in ("as-is", "temperature")
    )
    assert after["log_loss"]["value"] < before["log_loss"]["value"]
    assert after["accuracy"] == before["accuracy"]
    out = tmp_path / "out.onnx"
    run("calibrate", dev, "--model", write_tiny_model(tmp_path / "joint.onnx", contract), "--out", out)
    temperature = read_contract(out).calibration.joint_temperature
    assert f"Joint types are at the temperature {temperature:.3f}, " in report.read_text()


def test_a_model_that_learned_abnormality_alone_is_judged_and_calibrated(folder, tmp_path):
    contract = dataclasses.replace(CONTRACT, provenance=Provenance(protocol={"tasks": "abnormality"}))
    make_predictions(150, contract=contract).write(tmp_path / "one.json")
    result = run("evaluate", tmp_path / "one.json", "--resamples", 30)
    assert "joint type: the table holds no probabilities of joint types" in result.stderr
    write_tiny_model(tmp_path / "one.onnx", contract)
    out = tmp_path / "out.onnx"
    run("calibrate", tmp_path / "one.json", "--model", tmp_path / "one.onnx", "--out", out)
    assert read_contract(out).calibration.joint_temperature == 1
    assert read_contract(out).calibration.abnormality_temperature != 1


def test_there_is_no_mean_where_every_joint_type_has_too_few(folder, tmp_path):
    report = tmp_path / "r.html"
    make_predictions(30).write(tmp_path / "few.json")
    result = run("evaluate", tmp_path / "few.json", "--resamples", 30, "--report", report)
    assert result.stdout.count("too few") == 7 * 6
    assert "average" not in result.stdout + result.stderr
    assert "Average of" not in report.read_text()


def test_evaluate_says_of_how_many_joint_types_a_mean_is(folder, tmp_path):
    make_predictions(130).write(tmp_path / "a.json")
    averaged = json.loads(run("evaluate", tmp_path / "a.json", "--resamples", 30, "--format", "json").stdout)
    count = len(averaged["study"]["averaged"])
    assert 0 < count < 7
    lines = run("evaluate", tmp_path / "a.json", "--resamples", 30).stdout.splitlines()
    assert any(f"average of {count}" in line for line in lines)
    few = [line for line in lines if "too few" in line]
    assert len(few) == 7 - count
    assert all(line.count("too few") == 6 for line in few)
