"""The contract says the same before and after JSON, and refuses what it does not understand by name."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskscreen.contract import SCHEMA, Calibration, Gate, MapOutput, ModelContract, Novelty, Provenance
from mskscreen.errors import ContractError

words = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(1e-3, 1e3)
probabilities = st.floats(0, 1, exclude_min=True, exclude_max=True)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
contracts = st.builds(
    ModelContract,
    name=words,
    architecture=words,
    preprocessing=words,
    input_size=st.tuples(st.integers(1, 2048), st.integers(1, 2048)),
    batch=st.none() | st.integers(1, 64),
    calibration=st.builds(Calibration, positive, positive),
    operating_points=st.dictionaries(words, probabilities, max_size=3).map(lambda d: d | {"balanced": 0.5}),
    joint_confidence=probabilities,
    map=st.none() | st.builds(MapOutput, words, words, st.integers(1, 64)),
    novelty=st.none() | st.builds(Novelty, words, numbers, probabilities),
    approved=st.dictionaries(
        words, st.builds(Gate, st.booleans(), st.dictionaries(words, numbers, max_size=2)), max_size=2
    ),
    provenance=st.builds(
        Provenance,
        data=words,
        seed=st.none() | st.integers(),
        versions=st.dictionaries(words, words, max_size=2),
        protocol=st.dictionaries(words, plain_json, max_size=2),
        figures=st.dictionaries(words, numbers, max_size=2),
    ),
)
MINIMAL = {"name": "m", "architecture": "a", "preprocessing": "p", "input_size": [8, 8]}


@given(contracts)
def test_json_round_trip(contract: ModelContract) -> None:
    again = ModelContract.from_json(contract.to_json())
    assert again == contract
    assert again.digest == contract.digest


@given(st.integers(SCHEMA + 1, 10**9), st.dictionaries(words, plain_json, max_size=3))
def test_a_newer_schema_is_refused_by_its_number(schema: int, rest: dict) -> None:
    with pytest.raises(ContractError, match=f"schema {schema}"):
        ModelContract.from_json(json.dumps(rest | {"schema": schema}))


@given(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1))
def test_an_unknown_field_is_named(field: str) -> None:
    known = {f.name for f in dataclasses.fields(ModelContract)}
    if field not in known:
        with pytest.raises(ContractError, match=f"'{field}' is unknown"):
            ModelContract.from_json(json.dumps(MINIMAL | {field: 1}))


@pytest.mark.parametrize("field", MINIMAL)
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(ContractError, match=f"'{field}' is missing"):
        ModelContract.from_json(json.dumps({k: v for k, v in MINIMAL.items() if k != field}))


@given(st.sampled_from(sorted(f.name for f in dataclasses.fields(ModelContract))), plain_json)
def test_any_value_of_any_field_is_taken_or_refused_as_a_contract_error(field: str, value: object) -> None:
    try:
        contract = ModelContract.from_json(json.dumps(MINIMAL | {field: value}))
    except ContractError:
        return
    assert ModelContract.from_json(contract.to_json()) == contract


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_text_is_a_contract_or_a_contract_error(text: str) -> None:
    with pytest.raises(ContractError):
        ModelContract.from_json(text)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"operating_points": {"sensitive": 0.5}}, "balanced"),
        ({"operating_points": {"balanced": 1.0}}, r"outside \(0, 1\)"),
        ({"operating_points": {"balanced": math.nan}}, r"outside \(0, 1\)"),
        ({"calibration": {"abnormality_temperature": 0.0}}, "temperatures"),
        ({"calibration": {"joint_temperature": math.inf}}, "temperatures"),
        ({"study_aggregation": "max"}, "study_aggregation"),
        ({"input_size": [0, 8]}, "input_size"),
        ({"input_size": [8]}, r"input_size: expected a list of 2, found \[8\]"),
        ({"batch": 0}, "batch"),
        ({"batch": 10**9}, r"batch 1000000000 are below 1, or of more than 268,435,456 pixels"),
        ({"input_size": [10**400, 1]}, r"input_size \(1000{76}\.\.\. and batch"),
        ({"joint_confidence": 10**400}, "joint_confidence"),
        ({"joint_confidence": math.nan}, "joint_confidence is nan"),
        ({"joint_confidence": 7}, "joint_confidence is 7"),
        ({"novelty": {"method": "m", "threshold": math.nan, "quantile": 0.5}}, "threshold nan, not finite"),
        ({"novelty": {"method": "m", "threshold": 1.0, "quantile": 5}}, "quantile 5.0, outside"),
        ({"joints": ["elbow"]}, "order"),
        ({"precision": "fp4"}, "precision 'fp4' is none of f32, int8"),
        *(
            (
                {"variants": {name: {"file": "m", "bytes": 1, "sha256": ""}}},
                f"variants.{name} is no other precision",
            )
            for name in ("f32", "bf16", "weird")
        ),
        ({"name": "\ud800"}, "not JSON .*surrogates not allowed"),
        ({"provenance": {"protocol": {"a": ["\udfff"]}}}, "not JSON .*surrogates not allowed"),
        ({"map": {"method": "hirescam", "layer": "top", "stride": 0}}, "map has a stride of 0, below 1"),
        *(
            ({"variants": {"int8": {"file": file, "bytes": 1, "sha256": ""}}}, "bare name")
            for file in (".", "..", "", "m" * 256)
        ),
    ],
)
def test_values_out_of_range_are_named(fields: dict, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        ModelContract.from_json(json.dumps(MINIMAL | fields))


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "fields",
    [
        {LONG: 1},
        {"provenance": {LONG: 1}},
        {"approved": {LONG: 1}},
        {"approved": {LONG: {"passed": True, "measures": {LONG: "?"}}}},
        {"operating_points": {"balanced": 0.5, LONG: 2}},
        {"variants": {LONG: {"file": "m", "bytes": 1, "sha256": ""}}},
        {"variants": {"int8": {"file": LONG, "bytes": 1, "sha256": ""}}},
        {"study_aggregation": LONG},
        {"precision": LONG},
        {"schema": int("9" * 4000)},
        {"schema": -int("9" * 4000)},
        {"map": {"method": "hirescam", "layer": "top", "stride": -int("9" * 4000)}},
        {"name": LONG, "batch": 0},
        {"input_size": [LONG]},
    ],
)
def test_what_a_contract_holds_does_not_bury_the_sentence_that_refuses_it(fields: dict) -> None:
    with pytest.raises(ContractError) as caught:
        ModelContract.from_json(json.dumps(MINIMAL | fields))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("depth", [1, 30, 60])
def test_a_contract_that_is_read_can_be_written(depth: int) -> None:
    contract = ModelContract.from_json(nested(depth))
    assert ModelContract.from_json(contract.to_json()) == contract


@pytest.mark.parametrize("depth", [64, 600, 900, 100_000])
def test_a_contract_that_could_not_be_written_again_is_not_read(depth: int) -> None:
    with pytest.raises(ContractError, match=r"nested more than 64 levels deep|not JSON"):
        ModelContract.from_json(nested(depth))


def nested(depth: int) -> str:
    return json.dumps(MINIMAL)[:-1] + f', "provenance": {{"protocol": {{"a": {"[" * depth}{"]" * depth}}}}}}}'
