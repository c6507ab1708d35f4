"""8-bit integers: post-training static quantisation of an ONNX network, calibrated on training images.

Weights get a scale a channel, activations one for each tensor, from their smallest and largest value on the calibration
images (Jacob et al., CVPR 2018, equation 1: r = S (q - Z)). What stands before the first convolution and from the last
layer with weights on stays in float32: it costs next to nothing, and the vector's direction is made there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import need_extra
from isthmus.export.files import quiet, refused
from isthmus.models.runtimes import INPUT, import_runtime

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
Batch = np.ndarray[Any, np.dtype[np.uint8]]


class _Reader:
    """Batches as ONNX Runtime's calibration asks for them."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._left: Iterator[Batch] = iter(batches)

    def get_next(self) -> dict[str, Batch] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}

    def set_range(self, start_index: int, end_index: int) -> None:
        """Asked for by some calibrators; these batches are read once."""


def quantise(path: Path, batches: Sequence[Batch]) -> None:
    """Replace a `.onnx` file by its quantised version.

    Args:
        path: the file.
        batches: calibration images in the network's own layout, uint8.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
        IsthmusError: the network can't be quantised.
    """
    import_runtime("onnxruntime")
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise need_extra("onnx", error.name or "onnx") from error
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch, quiet():
            ready = Path(scratch) / "ready.onnx"
            quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(path),
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=left_alone(onnx.load(str(ready)).graph),
            )
    except Exception as error:
        raise refused("int8", error) from error


def left_alone(graph: Any) -> list[str]:
    """Names of the nodes that stay in float32: before the first layer with weights, and from the last one on."""
    nodes = list(graph.node)  # ONNX keeps them in an order in which they can be computed
    constants = {item.name for item in graph.initializer}
    heavy = [
        place
        for place, node in enumerate(nodes)
        if node.op_type in WEIGHTED and any(name in constants for name in node.input)
    ]
    if not heavy:
        return [node.name for node in nodes]
    return [node.name for place, node in enumerate(nodes) if place < heavy[0] or place >= heavy[-1]]
