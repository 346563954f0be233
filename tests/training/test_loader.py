"""Batches hold what the manifest says, whoever loads them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from image_files import copy_of_mura

from mskscreen.anatomy import JointType
from mskscreen.data.cache import CacheContract
from mskscreen.data.cache_build import build_cache
from mskscreen.data.mura import index_mura
from mskscreen.errors import DataError
from mskscreen.training.augment import Augmentation
from mskscreen.training.loader import RadiographDataset, loader
from mskscreen.training.sampling import RadiographSampler

CONTRACT = CacheContract("decode|grayscale|window(auto)|resize(32,32,bilinear,antialias)|unit")
AUGMENTATION = Augmentation.parse("rotation(20)|scale(0.9,1.1)|flip(0.5)|contrast(0.3)|gamma(0.8,1.2)|noise(0.05)")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    manifest = copy_of_mura(folder, 12)
    (manifest.root / manifest["image"][4]).write_bytes(b"no image")
    manifest, _ = index_mura(manifest.root)
    return manifest, build_cache(manifest, folder / "cache", CONTRACT)[0]


def epoch(built, workers, number=0):
    dataset = RadiographDataset(*built, AUGMENTATION)
    sampler = RadiographSampler(dataset.labels, dataset.joints, "class", seed=3)
    sampler.set_epoch(number)
    return list(loader(dataset, sampler, batch=8, workers=workers))


def test_items_are_the_images_and_labels_of_the_manifest(built):
    manifest, cache = built
    dataset = RadiographDataset(manifest, cache)
    assert dataset.dropped == 1
    assert 4 not in dataset.rows
    (batch,) = loader(dataset, None, batch=100)
    assert batch["image"].shape == (35, 1, 32, 32)
    assert batch["row"].tolist() == dataset.rows.tolist()
    assert batch["label"].tolist() == [manifest["label"][row] for row in dataset.rows]
    assert set(batch["joint"].tolist()) == {JointType.HAND}
    assert np.array_equal(batch["image"][:, 0].numpy(), cache.read(dataset.rows))


DIGESTS = """
import hashlib, runpy, sys
from pathlib import Path
test = runpy.run_path(sys.argv[1])
manifest, _ = test["index_mura"](Path(sys.argv[2]))
built = manifest, test["build_cache"](manifest, Path(sys.argv[3]), test["CONTRACT"])[0]
for workers, number in ((0, 0), (2, 0), (0, 1)):
    batches = [batch[name].numpy().tobytes() for batch in test["epoch"](built, workers, number) for name in batch]
    print(hashlib.sha256(b"".join(batches)).hexdigest())
"""


def test_the_number_of_workers_changes_nothing(built):
    # In a process of its own, as training is: beside the threads of everything tested before, torch's
    # workers bring their parent down now and then.
    manifest, cache = built
    arguments = [sys.executable, "-c", DIGESTS, __file__, str(manifest.root), str(cache.path.parent)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    alone, two, other_epoch = done.stdout.split()
    assert alone == two
    assert alone != other_epoch


def test_images_that_were_read_do_not_stay_in_memory(built):
    _, cache = built
    mapped = Path("/proc/self/smaps")
    if not mapped.exists():
        pytest.skip("needs the memory maps of Linux")

    def resident() -> int:
        _, _, rest = mapped.read_text().partition(f"{cache.path.stem}.npy\n")
        return int(rest.partition("\nRss:")[2].split()[0])

    assert cache.pixels.max() > 0
    assert resident() > 0
    assert cache.read(np.arange(len(cache))).max() > 0
    assert resident() == 0


def test_an_image_drawn_twice_is_augmented_twice(built):
    seen: dict[int, set[bytes]] = {}
    draws = 0
    for batch in epoch(built, 0):
        for row, image in zip(batch["row"].tolist(), batch["image"], strict=True):
            seen.setdefault(row, set()).add(image.numpy().tobytes())
            draws += 1
    assert len(seen) < draws
    assert sum(map(len, seen.values())) == draws


def test_loading_leaves_the_random_state_of_training_alone(built):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    epoch(built, 0)
    assert torch.equal(torch.rand(3), expected)


def test_unknown_labels_and_regions_are_minus_one(built):
    manifest, cache = built
    columns = {**manifest.columns, "joint": ["knee"] * len(manifest), "label_second": [None] * len(manifest)}
    item = RadiographDataset(manifest.replace(columns), cache, labels="label_second")[0]
    assert (int(item["label"]), int(item["joint"])) == (-1, -1)


def test_a_part_of_the_manifest_gives_that_part(built):
    manifest, cache = built
    part = RadiographDataset(manifest.take([9, 2, 4, 20]), cache)
    assert part.rows.tolist() == [0, 1, 3]
    assert np.array_equal(part[2]["image"][0].numpy(), cache.read([20])[0])


def test_a_stale_cache_is_refused(built):
    manifest, cache = built
    columns = {**manifest.columns, "bytes": [size + 1 for size in manifest["bytes"]]}
    with pytest.raises(DataError, match="stale"):
        RadiographDataset(manifest.replace(columns), cache)
    with pytest.raises(DataError, match="none of the 1 images"):
        RadiographDataset(manifest.take([4]), cache)
