"""Makes `mura_lists` importable by the tests of this room, and the published lists at full size once a run."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    from mura_lists import published_studies, write_lists

    from mskscreen.data.mura import index_mura

    return index_mura(write_lists(tmp_path_factory.mktemp("mura"), published_studies(), files=None))[0]
