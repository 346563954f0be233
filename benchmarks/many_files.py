"""Resident memory of `mskscreen predict` over a folder of very many files.

    python benchmarks/many_files.py --files 100000

Links to 500 phantoms (or, without --phantoms, to 500 small images made here) are screened into one CSV table by
the command itself. Its resident memory, without that of files that it maps, is read at every thousandth row: after
the first 5,000 it may grow by at most a tenth.

2026-11-27, links to 500 phantoms of 512 pixels, ResNet-18 int8 at 96 pixels, beside other work: 142 MB after 5,000
rows, 145 MB after 100,000 (531 s), a growth of 1.022 (met). Before the journal shared the names of the files it
was 136 to 154 MB, 1.137.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mskscreen import Screener

DISTINCT, WARM, ALLOWED = 500, 5_000, 1.10
COMMAND = [sys.executable, "-c", "from mskscreen.cli.main import run; run()", "predict"]


def make_images(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = [folder / f"{number}.png" for number in range(DISTINCT)]
    for file in files:
        pixels = np.kron(rng.integers(0, 200, (12, 10)), np.ones((8, 8))) + rng.normal(0, 3, (96, 80))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file)
    return files


def anonymous_memory(process: int) -> int:
    """Bytes of resident memory that no file stands behind."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--phantoms", type=Path, help="folder of PNGs to link to")
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    Screener.load(options.model)  # so that the compiled model is in the cache, as it is on a user's second run
    with tempfile.TemporaryDirectory() as name:
        source, folder, output = (Path(name) / part for part in ("source", "images", "table.csv"))
        source.mkdir()
        folder.mkdir()
        found = sorted(options.phantoms.rglob("*.png"))[:DISTINCT] if options.phantoms else make_images(source)
        for number in range(options.files):
            (folder / f"{number}.png").symlink_to(found[number % len(found)].resolve())
        journal = output.with_name("table.csv.journal")
        begin = time.perf_counter()
        process = subprocess.Popen([*COMMAND, folder, "--model", options.model, "--output", output])
        readings: dict[int, int] = {}
        rows = position = 0
        while process.poll() is None:
            time.sleep(0.2)
            if journal.exists():
                with journal.open("rb") as stream:
                    stream.seek(position)
                    rows += (part := stream.read()).count(b"\n")
                    position += len(part)
            if rows // 1000 not in readings and process.poll() is None:
                readings[rows // 1000] = anonymous_memory(process.pid)
        spent = time.perf_counter() - begin
        lines = sum(1 for _ in output.open("rb")) - 1
    warm = [size for thousand, size in readings.items() if thousand * 1000 >= WARM]
    print(f"exit code {process.returncode}, {lines} rows in {spent:.0f} s")
    print("MB at thousands of rows: " + ", ".join(f"{k}: {v / 2**20:.0f}" for k, v in sorted(readings.items())))
    if warm:
        growth = max(warm) / warm[0]
        print(f"growth after {WARM}: {growth:.3f} (allowed {ALLOWED}): {'met' if growth <= ALLOWED else 'missed'}")


if __name__ == "__main__":
    main()
