"""Images changed for the repeatability of maps look as the model sees the original."""

import numpy as np

from mskscreen.evaluation.explain.sanity import _changed
from mskscreen.pixels import Preprocessing, read_radiograph


def test_a_dim_radiograph_of_sixteen_bits_stays_as_bright_as_it_is_shown() -> None:
    y, x = np.mgrid[:40, :40]
    radiograph = read_radiograph((40 * (x + y)).astype(np.uint16))
    for windowed in (True, False):
        preprocessing = Preprocessing(32, 32, window=windowed)
        before = preprocessing(radiograph)
        for name, changed in _changed(radiograph, preprocessing):
            # A move brings the far edge in.
            assert np.median(np.abs(preprocessing(changed) - before)) < 0.05, name
