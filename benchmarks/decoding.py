"""From a DICOM or JPEG file to the input of a model: how fast, and what reading fewer pixels changes.

    mskscreen phantom make PHANTOMS --studies 60 --long-side 2500 --dicom
    python benchmarks/decoding.py PHANTOMS

Speed: one 12-bit phantom of 2500 x 2000 pixels in each transfer syntax. In turn, round by round: `pixel_array`
(pydicom.dcmread and its array, nothing else), the usual way (that, pydicom's apply_voi_lut, and Pillow's
antialiased resize to 224 x 224), and ours (`read_radiograph` and `Preprocessing`, which also hash the file and
write a record), read safely and fast.

Tolerance: every phantom as lossless JPEG 2000 and as JPEG of quality 95, scored by the model whole, and at the
fraction of its resolution that `predict --reading safe` and `fast` read. One may be the default only if the
probability of abnormality moves by at most 0.01 for 99 % of the phantoms.

Measured 2026-11-23 on 2 cores of an AMD EPYC with 20 other processes on them, so that times are many times those
of a quiet machine and only ratios tell anything; medians (ranges) of 3 rounds, time of `pixel_array` / of ours:

                     safe               fast               target
    JPEG 2000        6.3 (3.3-6.4)      11.8 (7.7-31.4)    8: missed, met by `fast`
    JPEG-LS          1.5 (0.9-2.2)      3.1 (1.4-3.2)      3: missed; both run CharLS, the rest is noise
    RLE              1.6 (1.3-1.9)      1.1 (1.1-1.7)
    uncompressed     0.18 (0.09-0.22)   0.24 (0.12-0.27)   1.5: missed; `pixel_array` is a read and no more, while
                                                           hashing the file alone takes twice as long

    usual way / ours, safe: JPEG 2000 8.6 (5.0-12.6), JPEG-LS 3.2 (1.2-4.1), uncompressed 5.5 (4.3-6.8)

Processor time of the decoders alone, 2500 x 2000 lossless: JPEG 2000 whole 466 ms, halved once (safe) 119, twice
(fast) 34; JPEG-LS 88. OpenJPEG and CharLS hold Python's lock all the while (574 of 579 ms); they run in processes.

Processor time on 2026-11-27 beside other work (load 3 to 11), before and after large images ceased to be floats as
a whole, memory was kept from one image to the next, and the planes of RLE were put in place:

                     before              after
    uncompressed     41.6-42.8 ms        19.5-20.3 ms (31.3-35.5 without the kept memory); `pixel_array` 3.4 ms
    JPEG-LS          127-147 ms          95-110 ms, of which CharLS in its own process 72-83
    RLE              92-93 ms            48-53 ms
    JPEG lossless    186-202 ms          133-154 ms

So 1.5 times `pixel_array` stays missed for uncompressed images: hashing alone is 5.7 ms of processor, if now in
a thread of its own; and 3 times for JPEG-LS, since both run CharLS. The wall was no measure that day.

The same on 2026-11-28 on 2 cores with AVX2 alone (Zen 3), load 3, 7 rounds, `pixel_array` / ours: JPEG 2000 3.6
(2.6-4.5) and fast 11.6 (5.7-12.8), JPEG-LS 1.4 (0.9-1.9) and 1.7 (1.4-2.0), RLE 2.2 (1.6-3.2), uncompressed 0.27
(0.15-0.48), JPEG lossless 0.94 (0.66-1.19); usual way / ours, safe: 4.6, 2.8, 3.1, 2.6 and 1.3.

Tolerance of the demonstration model of 2026-11-23 (letterbox of 256), 70 phantoms, `--only tolerance --images 70`,
share with |delta p| <= 0.01 and the largest; all miss 99 %, so `whole` is the default:

    JPEG 2000 at four times the model's resolution (safe) 95.7 %, 0.138; at twice (fast) 90.0 %, 0.226
    JPEG      at four times                               98.6 %, 0.022; at twice        91.4 %, 0.022

With the model before it: JPEG safe 100 % of 110, JPEG 2000 fast 91.8 % of 110. With those of 2026-11-28 (letterbox
of 448), 59 phantoms of 2,500 pixels: safe 100 %, for at four times 448 pixels nothing is left out; fast JPEG 2000
88.1 %, 0.034, fast JPEG 94.9 %, 0.034; and with mirror images, as it is bundled, fast JPEG 2000 98.3 %, 0.018 (one
phantom too many), fast JPEG 94.9 %, 0.019.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut

from mskscreen import Screener
from mskscreen.pixels import Preprocessing, Reading, read_radiograph
from mskscreen.pixels.memory import keep_freed_memory
from mskscreen.pixels.reduction import MARGINS

SHAPE, TARGETS = (2500, 2000), {"JPEG 2000": 8.0, "JPEG-LS": 3.0, "uncompressed": 1.5}
INPUT = Preprocessing.parse("decode|grayscale|window(auto)|resize(224,224,bilinear,antialias)|unit")
WITHIN, SHARE = 0.01, 0.99


def resized(source: Path) -> pydicom.Dataset:
    """A phantom at the size of a radiograph of the whole plate."""
    dataset = pydicom.dcmread(source)
    codes = Image.fromarray(dataset.pixel_array.astype(np.float32)).resize(SHAPE[::-1], Image.Resampling.BICUBIC)
    dataset.Rows, dataset.Columns = SHAPE
    top = 2**dataset.BitsStored - 1
    dataset.PixelData = np.clip(np.rint(np.asarray(codes)), 0, top).astype(np.uint16).tobytes()
    return dataset


def as_jpeg_2000(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The same image as lossless JPEG 2000, with the encoder's defaults (five levels, one tile)."""
    dataset.PixelData = encapsulate([encode_array(dataset.pixel_array, dataset.BitsStored)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    return dataset


def write_each_syntax(source: Path, folder: Path) -> dict[str, Path]:
    """One file a transfer syntax."""
    files = {name: folder / f"{name}.dcm" for name in ("uncompressed", "RLE", "JPEG-LS", "JPEG 2000")}
    resized(source).save_as(files["uncompressed"])
    for name, syntax in (("RLE", uid.RLELossless), ("JPEG-LS", uid.JPEGLSLossless)):
        dataset = resized(source)
        dataset.compress(syntax)
        dataset.save_as(files[name])
    as_jpeg_2000(resized(source)).save_as(files["JPEG 2000"])
    files["JPEG lossless"] = folder / "JPEG lossless.dcm"
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(files["uncompressed"]))
    reader.Read()
    kind = gdcm.TransferSyntax.GetTSType(str(uid.JPEGLosslessSV1))
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    change.Change()
    writer.SetFileName(str(files["JPEG lossless"]))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()
    return files


def usual_way(file: Path) -> np.ndarray:
    """What is found in tutorials: pydicom, its window, the range of values, and Pillow."""
    dataset = pydicom.dcmread(file)
    shown = apply_voi_lut(dataset.pixel_array, dataset)
    low, high = float(shown.min()), float(shown.max())
    unit = ((shown - low) / (high - low)).astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        unit = 1 - unit
    return np.asarray(Image.fromarray(unit).resize((224, 224), Image.Resampling.BILINEAR))


def measure_speed(files: dict[str, Path], rounds: int) -> None:
    """Milliseconds of each way, and how many times ours, read safely and fast, are the others'."""
    print(
        f"{'':14}"
        + "".join(f"{head:>22}" for head in ("pixel_array, ms", "usual way, ms", "safe, ms", "fast, ms"))
    )
    for name, file in files.items():
        times = {way: list[float]() for way in ("pixel_array", "usual way", "safe", "fast")}
        for number in range(rounds + 1):
            for way, spent in times.items():
                start = time.perf_counter()
                if way == "pixel_array":
                    pydicom.dcmread(file).pixel_array  # noqa: B018
                elif way == "usual way":
                    usual_way(file)
                else:
                    INPUT(read_radiograph(file, enough=INPUT.enough("safe" if way == "safe" else "fast")))
                spent.extend([1000 * (time.perf_counter() - start)] * (number > 0))
        print(f"{name:14}" + "".join(map(spread, times.values())))
        for other in ("pixel_array", "usual way"):
            target = f" (target {TARGETS[name]})" if name in TARGETS and other == "pixel_array" else ""
            ratios = ([a / b for a, b in zip(times[other], times[own], strict=True)] for own in ("safe", "fast"))
            print(f"{'':14}{other + ' / ours':>44}" + "".join(map(spread, ratios)) + target)


def measure_tolerance(phantoms: list[Path], model: str) -> None:
    screeners = {reading: Screener.load(model, precision="f32", reading=reading) for reading in MARGINS}
    moved: dict[tuple[str, str], list[float]] = defaultdict(list)

    def probability(reading: Reading, file: Path) -> float:
        row = screeners[reading].predict(file).images[0]
        if row.p_abnormal is None:
            raise SystemExit(row.error)
        return row.p_abnormal

    with tempfile.TemporaryDirectory() as name:
        dicom, jpeg = Path(name) / "image.dcm", Path(name) / "image.jpg"
        for phantom in phantoms:
            as_jpeg_2000(pydicom.dcmread(phantom)).save_as(dicom)
            pixels = np.rint(read_radiograph(phantom).pixels * 255).astype(np.uint8)
            Image.fromarray(pixels).save(jpeg, quality=95)
            # The JPEG 2000 is lossless: whole, it is the phantom.
            for kind, file, whole in (("JPEG 2000", dicom, phantom), ("JPEG", jpeg, jpeg)):
                expected = probability("whole", whole)
                for reading in MARGINS:
                    if reading != "whole":
                        moved[reading, kind].append(abs(probability(reading, file) - expected))
    for (reading, kind), values in sorted(moved.items(), reverse=True):
        share = float(np.mean(np.array(values) <= WITHIN))
        print(
            f"{reading} {kind}: {len(values)} phantoms, |delta p| <= {WITHIN} for {100 * share:.1f} % "
            f"({'met' if share >= SHARE else 'missed'}), mean {np.mean(values):.4f}, largest {max(values):.4f}"
        )


def spread(values: list[float]) -> str:
    return f"{f'{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})':>22}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, help="phantoms to score; by default all")
    parser.add_argument("--only", choices=["speed", "tolerance"])
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do
    phantoms = sorted(options.phantoms.rglob("*.dcm"))
    print(f"load average {os.getloadavg()[0]:.1f}")
    if options.only != "tolerance":
        with tempfile.TemporaryDirectory() as name:
            measure_speed(write_each_syntax(phantoms[0], Path(name)), options.rounds)
    if options.only != "speed":
        measure_tolerance(phantoms[: options.images], options.model)


if __name__ == "__main__":
    main()
