"""Exported networks at work: ONNX Runtime and OpenVINO behind one call, on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from isthmus.errors import IsthmusError, need_extra

INPUT, OUTPUT = "images", "vectors"
ONNX, OPENVINO = "onnxruntime", "openvino"
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Vectors = np.ndarray[Any, np.dtype[np.float32]]


class Runtime(Protocol):
    """A network in a file: uint8 images of any number become unit vectors float32 (n, dim)."""

    def __call__(self, images: Pixels) -> Vectors: ...


class OnnxRuntime:
    """A `.onnx` file in ONNX Runtime, with as many threads as torch has at that moment.

    Args:
        path: the file.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        IsthmusError: the file can't be read.
    """

    def __init__(self, path: Path) -> None:
        module = import_runtime(ONNX)
        options = module.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = module.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise unreadable(path, ONNX, error) from error

    def __call__(self, images: Pixels) -> Vectors:
        vectors: Vectors = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})[0]
        return vectors


class OpenVino:
    """An `.xml` or `.onnx` file in OpenVINO; one thread at a time computes.

    Args:
        path: the file.
        bfloat16: compute in it where the processor can. Left to itself OpenVINO would always do so, and the vectors
            would not be those of the model.

    Raises:
        MissingExtraError: openvino is not installed.
        IsthmusError: the file can't be read.
    """

    def __init__(self, path: Path, bfloat16: bool = False) -> None:
        module = import_runtime(OPENVINO)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._network = module.Core().compile_model(str(path), "CPU", settings)
        except Exception as error:
            raise unreadable(path, OPENVINO, error) from error
        self._request = self._network.create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, images: Pixels) -> Vectors:
        with self._lock:
            found = self._request.infer({0: np.ascontiguousarray(images)})
            return np.array(found[self._network.output(0)], np.float32)


def import_runtime(name: str) -> Any:
    """The package of a runtime.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        if name == OPENVINO:
            import openvino

            return openvino
        import onnxruntime

        return onnxruntime
    except ImportError as error:
        raise need_extra("openvino" if name == OPENVINO else "onnx", name) from error


def open_runtime(name: str, path: Path, *, bfloat16: bool = False) -> Runtime:
    """The network of a file, in the runtime of that name.

    Raises:
        IsthmusError: no such runtime, or one that has no bfloat16.
    """
    if name == OPENVINO:
        return OpenVino(path, bfloat16)
    if name != ONNX:
        raise IsthmusError(f"{path} is for the runtime '{name}', which this version does not know; export anew.")
    if bfloat16:
        raise IsthmusError(f"ONNX Runtime computes {path.name} in float32 alone; leave bfloat16 out.")
    return OnnxRuntime(path)


def unreadable(path: Path, runtime: str, error: Exception) -> IsthmusError:
    """The error to raise where a runtime refuses a file."""
    reason = " ".join(str(error).split())[-200:] or type(error).__name__  # the path comes first, what is wrong last
    return IsthmusError(f"{path} can't be read by {runtime} ({reason}); make it anew with  isthmus export.")
