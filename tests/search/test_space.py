"""A space of cells: what is written is what is trained, each cell once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_search import small_space

from mskscreen.errors import ProtocolError
from mskscreen.networks import NETWORKS
from mskscreen.search.space import Halving, Space
from mskscreen.training.protocol import Protocol


def _space(folder: Path, text: str) -> Space:
    return Space.from_toml(small_space(folder, text))


def test_the_shipped_space_is_the_published_search() -> None:
    space = Space.from_toml("paper-space.toml")
    paper = Protocol.from_toml("paper.toml")
    assert len(space.cells) == len(space.runs) == len({run.name for run in space.runs}) == 48
    expected = {
        (architecture, init, loss, tasks)
        for architecture in NETWORKS
        for init in ("imagenet", "random")
        for loss in ("cross-entropy", "weighted")
        for tasks in ("both", "abnormality")
    }
    found = {(p.architecture, p.init, p.loss, p.tasks) for p in (run.protocol for run in space.runs)}
    assert found == expected
    for run in space.runs:
        changed = {
            "architecture": paper.architecture,
            "init": paper.init,
            "loss": paper.loss,
            "tasks": paper.tasks,
        }
        assert run.protocol.replace(**changed) == paper


def test_every_seed_of_every_cell_once_and_the_first_seed_first(tmp_path: Path) -> None:
    space = _space(tmp_path, 'protocol="tiny.toml"\nseeds=[3,1]\n[axes]\ntasks=["both","joint"]\nepochs=[2,4]')
    assert [run.protocol.seed for run in space.runs] == [3] * 4 + [1] * 4
    assert space.cells == ["both epochs=2", "both epochs=4", "joint epochs=2", "joint epochs=4"]
    assert all(run.protocol.input_size == 32 for run in space.runs)


def test_a_number_stands_with_its_axis_in_the_name_of_a_cell_and_a_word_alone(tmp_path: Path) -> None:
    text = 'protocol="tiny.toml"\n[axes]\nrate=[1e-05,0.01]\ndecay=[0]\naugmentation=["none"]\ntasks=["both"]'
    rest = "decay=0 augmentation=none both"
    assert _space(tmp_path, text).cells == [f"rate=1e-05 {rest}", f"rate=0.01 {rest}"]


def test_a_level_may_change_several_keys(tmp_path: Path) -> None:
    text = 'protocol="tiny.toml"\n[axes]\nsize=[{name="small",input_size=32,batch=4},{input_size=64}]'
    small, large = _space(tmp_path, text).runs
    assert (small.cell, small.protocol.input_size, small.protocol.batch) == ("small", 32, 4)
    assert (large.cell, large.protocol.input_size, large.protocol.batch) == ("size=64", 64, 8)


def test_further_products_have_the_values_of_the_protocol_on_axes_they_leave_out(tmp_path: Path) -> None:
    space = _space(
        tmp_path,
        """
protocol = "tiny.toml"
[axes]
tasks = ["both", "joint"]
loss = ["cross-entropy"]
[[more]]
tasks = ["both", "abnormality"]
init = ["random"]
""",
    )
    assert space.cells == [
        *("both cross-entropy random", "joint cross-entropy random", "abnormality cross-entropy random"),
    ]
    assert all(list(run.levels) == ["tasks", "loss", "init"] for run in space.runs)


def test_skipped_cells_are_left_out(tmp_path: Path) -> None:
    text = 'protocol="tiny.toml"\n[axes]\ntasks=["both","joint"]\nepochs=[2,4]\n[[skip]]\ntasks="joint"\nepochs=4'
    assert _space(tmp_path, text).cells == ["both epochs=2", "both epochs=4", "joint epochs=2"]


def test_a_cell_that_is_left_out_need_not_be_one_that_can_be_trained(tmp_path: Path) -> None:
    text = """
protocol = "tiny.toml"
[axes]
tasks = ["both", "abnormality"]
task_weights = ["fixed", "uncertainty"]
[[skip]]
tasks = "abnormality"
task_weights = "uncertainty"
"""
    assert _space(tmp_path, text).cells == ["both fixed", "both uncertainty", "abnormality fixed"]
    with pytest.raises(ProtocolError, match="needs two tasks"):
        _space(tmp_path, text.partition("[[skip]]")[0])


def test_folds_repeat_a_cell_as_seeds_do(tmp_path: Path) -> None:
    text = 'protocol="tiny.toml"\nseeds=[0,1]\n[axes]\ntasks=["both","joint"]\nfold=[0,1,2]'
    space = _space(tmp_path, text)
    assert space.cells == ["both", "joint"]
    assert len({run.key for run in space.runs}) == 2
    repeats = {(run.cell, run.protocol.fold, run.protocol.seed) for run in space.runs}
    assert len(space.runs) == len(repeats) == 2 * 3 * 2


def test_a_path_to_begin_with_is_that_beside_the_file_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    text = 'protocol="tiny.toml"\n[axes]\ninit=["weights.safetensors", "random", "absent.pth"]'
    monkeypatch.chdir(tmp_path / "elsewhere")
    beside, random, absent = _space(tmp_path, text).runs
    assert beside.protocol.init == str(tmp_path / "weights.safetensors")
    assert beside.cell == "weights.safetensors"
    assert (random.protocol.init, absent.protocol.init) == ("random", "absent.pth")
    monkeypatch.chdir(tmp_path)
    assert _space(tmp_path, text).runs[0].name == beside.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sedes = [1]", "nearest known one is 'seeds'"),
        ("seeds = []", "seeds"),
        ("seeds = [1.5]", "seeds"),
        ('[axes]\nlos = ["focal"]', "nearest known one is 'loss'"),
        ('[axes]\nloss = ["hinge"]', "'hinge' is not one of"),
        ('[axes]\nloss = "focal"', "axis 'loss': write a list"),
        ('[axes]\nloss = ["focal", "focal"]', "given twice"),
        ("[axes]\nseed = [1]", "set by another axis, or by seeds"),
        ("[axes]\nbatch=[4]\nsize=[{batch=8}]", "axis 'size': key 'batch' is set by another axis"),
        ('[[skip]]\ntasks="joint"', "no cell has tasks = joint"),
        ('[axes]\ntasks=["both"]\n[[skip]]\ntasks="both"', "every cell is skipped"),
        ('[axes]\nloss=[{name="a",epochs=1}]\n[[more]]\nloss=[{name="a",epochs=2}]', "two cells are named 'a'"),
        (
            '[axes]\na=[{name="x",epochs=1},{name="x y",epochs=2}]\nb=[{name="y z",batch=8},{name="z",batch=16}]',
            "two cells are named 'x y z'",
        ),
        ('[axes]\npart=[{name="a",fold=0},{name="b",fold=1}]', "axis 'part': key 'fold' repeats cells"),
        ("[halving]\nfactor = 1", "key factor"),
        ("[halving]\nfirst = true", "key first"),
        ("[halving]\nrung = 1", "'rung' is unknown"),
        ("axes = 3", "must be a table"),
        ("protocol = 3", "name of a protocol"),
        ('protocol = "absent.toml"', "no such file"),
        ("= 3", "cannot be read as TOML"),
        (f"{'x' * 9000} = 1", "key 'xxx"),
        (f"[axes]\n{'x' * 9000} = 1", "axis 'xxx"),
        (f"[[skip]]\n{'x' * 9000} = 1", "no cell has xxx"),
        ("[axes]\n" + "\n".join(f"a{k} = [{','.join(map(str, range(100)))}]" for k in range(9)), "100,000; leave"),
    ],
)
def test_a_space_that_is_wrong_is_refused_by_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=r"space\.toml") as caught:
        _space(tmp_path, text if "protocol" in text or text == "= 3" else f'protocol="tiny.toml"\n{text}')
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_an_absent_space_names_the_shipped_ones() -> None:
    with pytest.raises(ProtocolError, match=r"paper-space\.toml"):
        Space.from_toml("absent")


def test_rungs_grow_by_the_factor_and_end_before_the_run_does() -> None:
    assert Halving(3, 1).rungs(10) == [1, 3, 9]
    assert Halving(3, 1).rungs(9) == [1, 3]
    assert Halving(2, 4).rungs(4) == []


def test_a_table_of_halving_without_keys_halves_by_the_defaults(tmp_path: Path) -> None:
    assert _space(tmp_path, 'protocol="tiny.toml"\n[halving]').halving == Halving()
    assert _space(tmp_path, 'protocol="tiny.toml"').halving is None
