"""Bounds on what a file may ask for, all checked before anything is decoded.

Checking happens on headers alone: a file that claims more than a bound is refused without allocating for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mskscreen.errors import LimitError


@dataclass(frozen=True)
class Limits:
    """What one file may ask for; the defaults are several times the largest radiograph in clinical use.

    `file_bytes` bounds the file and an inflated DICOM data set; `pixels` is rows x columns; `decoded_bytes` is
    rows x columns x samples x bytes of a sample; `nesting` counts DICOM sequences inside each other;
    `elements` counts DICOM data elements; `deflated` allows the deflated transfer syntax.
    """

    file_bytes: int = 256 << 20
    pixels: int = 64 << 20
    decoded_bytes: int = 256 << 20
    nesting: int = 16
    elements: int = 100_000
    deflated: bool = False

    @classmethod
    def of_pixels(cls, pixels: int) -> Limits:
        """Limits that allow images of so many `pixels`, 4 bytes each; the other bounds do not fall below usual."""
        usual = cls()
        return cls(max(usual.file_bytes, 4 * pixels), pixels, max(usual.decoded_bytes, 4 * pixels))

    def check_file(self, name: str, size: int) -> None:
        """Refuse a file of more than `file_bytes` bytes.

        Raises LimitError.
        """
        if size > self.file_bytes:
            raise LimitError(
                f"{name}: {size:,} bytes are more than the limit of {self.file_bytes:,}; "
                "raise --max-pixels or Limits.file_bytes"
            )

    def check_image(self, name: str, rows: int, columns: int, *, samples: int = 1, bits: int = 8) -> None:
        """Refuse an image whose header asks for more pixels or bytes than allowed, or for none.

        Raises LimitError.
        """
        if min(rows, columns) < 1:
            raise LimitError(f"{name}: an image of {rows} rows and {columns} columns holds no pixel")
        if rows * columns > self.pixels:
            raise LimitError(
                f"{name}: {rows} rows x {columns} columns are more than the limit of {self.pixels:,} pixels; "
                "raise --max-pixels or Limits.pixels"
            )
        size = rows * columns * samples * -(-bits // 8)
        if size > self.decoded_bytes:
            raise LimitError(
                f"{name}: {size:,} bytes once decoded are more than the limit of {self.decoded_bytes:,}; "
                "raise --max-pixels or Limits.decoded_bytes"
            )
