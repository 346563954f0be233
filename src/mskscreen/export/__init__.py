"""Export of a trained network to the one ONNX file that every engine reads."""

from mskscreen.export.onnx import check_parity, export_onnx

__all__ = ["check_parity", "export_onnx"]
