"""A manifest is whole and unchanged, or it is refused."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mura_lists import Study, write_lists

from mskscreen.data.manifest import Manifest
from mskscreen.data.mura import index_mura
from mskscreen.errors import DataError


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    return index_mura(write_lists(tmp_path, [Study("XR_HAND", f"patient0000{i}", 1, i % 2, 2) for i in range(5)]))[
        0
    ]


def test_what_is_written_is_read(manifest, tmp_path):
    path = tmp_path / "m.parquet"
    manifest.replace({**manifest.columns, "label_second": [None] * 10}, second={"file": "x"}).write(path)
    again = Manifest.read(path)
    assert again.columns == {**manifest.columns, "label_second": [None] * 10}
    assert again.root == manifest.root.resolve()
    assert (again.source, again.notes) == ("mura", {"second": {"file": "x"}})
    assert again.digest != manifest.digest
    assert list(path.parent.glob(".*")) == []


def test_a_column_of_times_that_was_added_is_a_change_like_any_other(manifest, tmp_path):
    path = tmp_path / "m.parquet"
    manifest.write(path)
    table = pq.read_table(path)
    pq.write_table(table.append_column("seen", pa.array([0] * len(table), pa.timestamp("s"))), path)
    with pytest.raises(DataError, match="digest does not fit"):
        Manifest.read(path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_cut_manifest_is_refused(manifest, tmp_path, keep):
    path = tmp_path / "m.parquet"
    manifest.write(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=r"m\.parquet: not a whole manifest"):
        Manifest.read(path)


def test_a_changed_manifest_is_refused(manifest, tmp_path):
    path = tmp_path / "m.parquet"
    manifest.write(path)
    table = pq.read_table(path)
    labels = table["label"].to_pylist()
    labels[0] = 1 - labels[0]
    index = table.column_names.index("label")
    pq.write_table(table.set_column(index, table.field(index), pa.array(labels, "int8")), path)
    with pytest.raises(DataError, match="digest does not fit"):
        Manifest.read(path)


def test_a_manifest_that_points_out_of_its_root_is_refused(manifest, tmp_path):
    path = tmp_path / "m.parquet"
    images = ["../../etc/passwd", *manifest["image"][1:]]
    manifest.replace({**manifest.columns, "image": images}).write(path)
    with pytest.raises(DataError, match="leaves the root"):
        Manifest.read(path)


def test_a_writer_that_is_killed_leaves_the_old_manifest(manifest, tmp_path):
    path = tmp_path / "m.parquet"
    manifest.write(path)
    code = """
import os, signal, sys
from pathlib import Path
from mskscreen.storage import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert Manifest.read(path).digest == manifest.digest


def test_columns_that_lack_are_named(manifest):
    with pytest.raises(DataError, match="'label' is missing"):
        Manifest(manifest.root, {k: v for k, v in manifest.columns.items() if k != "label"}, "mura")
    with pytest.raises(DataError, match="no column 'label_x'"):
        manifest["label_x"]
