"""A cache is whole, of the files it says, or it is refused and built again."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import copy_of_mura, limb
from PIL import Image

from mskscreen.data.cache import BLOCK, Cache, CacheContract
from mskscreen.data.cache_build import build_cache
from mskscreen.data.manifest import Manifest
from mskscreen.data.mura import index_mura
from mskscreen.errors import DataError, PreprocessingError
from mskscreen.lock import locked
from mskscreen.pixels import Preprocessing, read_radiograph

STRING = "decode|grayscale|window(auto)|letterbox(24,20,bilinear,antialias)|unit"
CONTRACT = CacheContract(STRING)
BUILD_AND_DIE = """
import os, signal, sys
from pathlib import Path
from mskscreen.data.cache import CacheContract
from mskscreen.data.cache_build import build_cache
from mskscreen.data.manifest import Manifest

finished = 0
def advance(count):
    global finished
    finished += count
    if finished >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

build_cache(Manifest.read(Path(sys.argv[1])), Path(sys.argv[2]), CacheContract(sys.argv[3]), advance=advance)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Manifest:
    """Three blocks of images."""
    return copy_of_mura(tmp_path_factory.mktemp("large"), 100)


@pytest.fixture
def small(tmp_path) -> Manifest:
    return copy_of_mura(tmp_path / "small", 4)


def touch(manifest: Manifest, row: int, pixels: np.ndarray) -> Path:
    path = manifest.root / manifest["image"][row]
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(1, 1))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_pixels_are_those_of_the_preprocessing_to_half_a_step(small, tmp_path, dtype):
    cache, built = build_cache(small, tmp_path / "cache", CacheContract(STRING, dtype))
    assert built
    for row, image in enumerate(small["image"]):
        expected = Preprocessing.parse(STRING)(read_radiograph(small.root / image))
        assert cache.read([row]).shape == expected.shape
        assert np.abs(cache.read([row]) - expected).max() <= 0.5001 / cache.scale


def test_the_name_says_how_the_pixels_were_made(small):
    assert CONTRACT.name(small).startswith("24x20-letterbox-uint8-")
    squash = CacheContract(STRING.replace("letterbox", "resize"), "uint16")
    assert squash.name(small).startswith("24x20-squash-uint16-")
    names = {CONTRACT.name(small), CONTRACT.name(small.take(range(5)))}
    names.add(CacheContract(STRING.replace("window(auto)|", "")).name(small))
    assert len(names) == 3
    relabelled = small.replace({**small.columns, "label": [None] * len(small)})
    assert CONTRACT.name(relabelled) == CONTRACT.name(small)


def test_a_second_build_does_nothing(small, tmp_path):
    cache, _ = build_cache(small, tmp_path, CONTRACT)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("24x20*.npy")}
    again, built = build_cache(small, tmp_path, CONTRACT)
    assert not built
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.entries == cache.entries


def test_workers_do_not_change_the_cache(large, tmp_path):
    one, _ = build_cache(large, tmp_path / "one", CONTRACT)
    two, _ = build_cache(large, tmp_path / "two", CONTRACT, workers=2)
    assert (one.digests, one.entries) == (two.digests, two.entries)
    assert len(one.digests) == 3


@pytest.mark.parametrize("kill_after", [BLOCK, 2 * BLOCK])
def test_a_killed_build_is_never_taken_for_a_whole_one_and_goes_on(large, tmp_path, kill_after):
    large.write(tmp_path / "index.parquet")
    folder = tmp_path / "cache"
    arguments = [str(tmp_path / "index.parquet"), str(folder), STRING, str(kill_after)]
    assert subprocess.run([sys.executable, "-c", BUILD_AND_DIE, *arguments]).returncode == -9
    assert list(folder.glob("*.npy")) == list(folder.glob("*.parquet")) == []
    with pytest.raises(DataError, match="no such cache"):
        Cache.open(folder / f"{CONTRACT.name(large)}.parquet")
    steps: list[int] = []
    resumed, built = build_cache(large, folder, CONTRACT, advance=steps.append)
    assert built
    assert steps[0] == kill_after
    assert sum(steps) == len(large)
    whole, _ = build_cache(large, tmp_path / "whole", CONTRACT)
    assert resumed.digests == whole.digests
    assert {path.suffix for path in folder.iterdir()} == {".npy", ".parquet", ".lock"}


def test_a_resumed_build_redoes_blocks_that_were_torn_or_whose_sources_changed(large, tmp_path):
    large.write(tmp_path / "index.parquet")
    folder = tmp_path / "cache"
    arguments = [str(tmp_path / "index.parquet"), str(folder), STRING, str(2 * BLOCK)]
    subprocess.run([sys.executable, "-c", BUILD_AND_DIE, *arguments])
    (partial,) = folder.glob("*.npy.partial")
    with partial.open("r+b") as stream:
        stream.seek(200)
        stream.write(b"torn by a power cut")
    steps: list[int] = []
    resumed, _ = build_cache(large, folder, CONTRACT, advance=steps.append)
    assert steps[0] == BLOCK
    assert resumed.digests == build_cache(large, tmp_path / "whole", CONTRACT)[0].digests


def test_a_kill_between_the_array_and_its_index_loses_nothing(small, tmp_path):
    whole, _ = build_cache(small, tmp_path / "a", CONTRACT)
    (tmp_path / "b").mkdir()
    whole.path.with_suffix(".npy").rename(tmp_path / "b" / whole.path.with_suffix(".npy").name)
    again, built = build_cache(small, tmp_path / "b", CONTRACT)
    assert built
    assert again.digests == whole.digests


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "index"])
def test_a_damaged_cache_is_refused_and_built_again(small, tmp_path, damage):
    cache, _ = build_cache(small, tmp_path, CONTRACT)
    array = cache.path.with_suffix(".npy")
    data = bytearray(array.read_bytes())
    if damage == "flip":
        data[-100] ^= 1
        array.write_bytes(data)
    elif damage == "cut":
        array.write_bytes(data[:-1])
    elif damage == "missing":
        array.unlink()
    else:
        cache.path.write_bytes(cache.path.read_bytes()[:-50])
    with pytest.raises(DataError, match="build the cache again"):
        Cache.open(cache.path)
    again, built = build_cache(small, tmp_path, CONTRACT)
    assert built
    assert again.digests == cache.digests


def test_a_changed_file_makes_the_cache_stale(small, tmp_path):
    cache, _ = build_cache(small, tmp_path, CONTRACT)
    path = small.root / small["image"][3]
    same = path.read_bytes()
    os.utime(path, ns=(1, 1))
    assert cache.stale(small.tree) == 0
    path.write_bytes(same[:-1] + b"?")
    os.utime(path, ns=(1, 1))
    assert cache.stale(small.tree) == 1
    path.write_bytes(same + b"longer")
    assert cache.stale(small.tree) == 1
    with pytest.raises(DataError, match=r"stale, .* row 3 "):
        cache.rows(index_mura(small.root)[0])
    _, built = build_cache(small, tmp_path, CONTRACT)
    assert built


def test_rows_follow_the_manifest_and_leave_out_what_could_not_be_decoded(small, tmp_path):
    (small.root / small["image"][2]).write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    (small.root / small["image"][5]).unlink()
    manifest, _ = index_mura(small.root)
    cache, _ = build_cache(manifest, tmp_path, CONTRACT)
    order = [7, 2, 5, 0]
    assert cache.rows(manifest.take(order)).tolist() == [7, -1, -1, 0]
    assert cache.pixels[2].max() == 0
    assert "truncated or corrupt" in cache.entries[2].error
    assert all(entry.error is None for row, entry in enumerate(cache.entries) if row not in (2, 5))
    assert not any("patient" in (entry.error or "") for entry in cache.entries)
    _, built = build_cache(manifest, tmp_path, CONTRACT)
    assert not built


def test_a_study_that_links_to_itself_is_black_and_neither_stops_nor_repeats_a_build(large, tmp_path):
    root = Path(shutil.copytree(large.root, tmp_path / "copy"))
    study = (root / large["image"][0]).parent
    shutil.rmtree(study)
    study.symlink_to(study)
    manifest, _ = index_mura(root)
    assert manifest["bytes"][0] is None

    def stop(count):
        if count:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        build_cache(manifest, tmp_path / "cache", CONTRACT, advance=stop)
    cache, built = build_cache(manifest, tmp_path / "cache", CONTRACT)
    assert built
    assert cache.rows(manifest)[0] == -1
    assert not build_cache(manifest, tmp_path / "cache", CONTRACT)[1]


def test_a_cache_of_other_images_is_refused(small, tmp_path):
    cache, _ = build_cache(small.take(range(6)), tmp_path, CONTRACT)
    assert cache.rows(small.take([4, 1])).tolist() == [4, 1]
    with pytest.raises(DataError, match="stale"):
        cache.rows(small)


def test_two_builders_of_one_cache_do_not_meet(small, tmp_path):
    lock = tmp_path / f"{CONTRACT.name(small)}.lock"
    with locked(lock, "this cache"), pytest.raises(DataError, match="another process"):
        build_cache(small, tmp_path, CONTRACT)
    assert build_cache(small, tmp_path, CONTRACT)[1]


def test_a_pickled_cache_maps_the_file_instead_of_copying_it(small, tmp_path):
    cache, _ = build_cache(small, tmp_path, CONTRACT)
    pixels = cache.pixels
    copy = pickle.loads(pickle.dumps(cache))
    assert "pixels" not in copy.__dict__
    assert isinstance(copy.pixels, np.memmap)
    assert np.array_equal(copy.pixels, pixels)


def test_pixels_cannot_be_written_through_a_cache(small, tmp_path):
    cache, _ = build_cache(small, tmp_path, CONTRACT)
    with pytest.raises(ValueError, match="read-only"):
        cache.pixels[0] = 1


def test_impossible_contracts_are_refused():
    with pytest.raises(DataError, match="float32"):
        CacheContract(STRING, "float32")
    with pytest.raises(PreprocessingError):
        CacheContract("resize")


def test_the_helper_images_differ():
    assert len({limb(seed).tobytes() for seed in range(50)}) == 50
