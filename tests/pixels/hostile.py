"""Decode every file of a folder under a limit of memory and of CPU time, and print one JSON line a file.

Run by test_hostile.py in a process of its own: python hostile.py FOLDER.
"""

import gc
import json
import resource
import signal
import sys
from pathlib import Path

import mskscreen.pixels.dicom  # noqa: F401  imported before memory is limited
from mskscreen.errors import DecodeError
from mskscreen.pixels import Limits, read_radiograph

BOUND = 16 << 20
# What decoders keep beside the image: zlib and libjpeg windows, arenas of the allocator.
OVERHEAD = 48 << 20
SECONDS = 2

if __name__ == "__main__":
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize()
    # Three times the bound: the stored samples, the floats, and one intermediate.
    resource.setrlimit(resource.RLIMIT_AS, (size + 3 * BOUND + OVERHEAD, resource.RLIM_INFINITY))
    limits = Limits(file_bytes=BOUND, pixels=BOUND // 4, decoded_bytes=BOUND, deflated=True)
    for path in sorted(Path(sys.argv[1]).iterdir()):
        # The default action of the signal ends the process: a slow file fails the test.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            read_radiograph(path, limits)
            outcome = "decoded"
        except DecodeError as error:
            outcome = str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.collect()  # or what one file left counts against the next
        print(json.dumps([path.name, outcome]), flush=True)
