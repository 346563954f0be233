"""The kind of machine: what decides how fast a precision is here, and in which instructions it is computed."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

# Instructions of low precision, by their names in /proc/cpuinfo of Linux (x86-64, then Arm).
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve"),
)


@cache
def machine_kind() -> str:
    """Processor family and its instructions of low precision, as `x86_64+avx2+avx512f+avx512_vnni`.

    Where the operating system does not list instructions it is the family alone.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = (line.partition(":") for line in text.splitlines())
    listed = next((set(value.split()) for name, _, value in lines if name.strip() in ("flags", "Features")), set())
    return "+".join([platform.machine(), *(name for name in _INSTRUCTIONS if name in listed)])
