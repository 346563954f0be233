"""Screening of upper-limb musculoskeletal radiographs. Research use, not for diagnosis."""

__version__ = "0.1.0"
