"""Networks as files: ONNX, OpenVINO, and ONNX with 8-bit integers."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from isthmus.errors import IsthmusError, need_extra
from isthmus.export.network import Network, example_of, names_of
from isthmus.models.encoder import Model
from isthmus.models.runtimes import INPUT, OUTPUT, import_runtime

OPSET = 18


def write_onnx(model: Model, folder: Path, *, nhwc: bool = False) -> list[str]:
    """Write a model's networks as `.onnx` files.

    Args:
        model: it.
        folder: where to.
        nhwc: the layout of the images.

    Returns:
        The file names of the query domain's and the gallery domain's network; the same twice where it is one.

    Raises:
        MissingExtraError: onnx is not installed.
        IsthmusError: the network has something that can't be written.
    """
    require_exporter()
    names = names_of(model)
    for domain, name in enumerate(names):
        if name not in names[:domain]:
            _trace(model, domain, folder / f"{name}.onnx", nhwc)
    return [f"{name}.onnx" for name in names]


def write_openvino(model: Model, folder: Path, *, nhwc: bool = False) -> list[str]:
    """Write a model's networks as `.xml` and `.bin` files of OpenVINO, in float32.

    Arguments, result and errors as of `write_onnx`, through which they go.
    """
    openvino = import_runtime("openvino")
    names = write_onnx(model, folder, nhwc=nhwc)
    made = {}
    for name in dict.fromkeys(names):
        made[name] = str(Path(name).with_suffix(".xml"))
        try:
            with quiet():
                # Not convert_model: that would report its use to its maker.
                network = openvino.Core().read_model(str(folder / name))
                openvino.save_model(network, str(folder / made[name]), compress_to_fp16=False)
        except Exception as error:
            raise refused("OpenVINO", error) from error
        for part in folder.glob(f"{name}*"):
            part.unlink()
    return [made[name] for name in names]


def require_exporter() -> None:
    """Raise where the package that writes ONNX is missing."""
    try:
        import onnx  # noqa: F401 - torch imports it, and says less clearly that it is missing
    except ImportError as error:
        raise need_extra("onnx", "onnx") from error


def _trace(model: Model, domain: int, path: Path, nhwc: bool) -> None:
    network = Network(model, domain, nhwc)
    try:
        with quiet(), torch.no_grad():
            # The exporter by tracing. The newer one (dynamo) takes up to minutes for a batch of any size.
            torch.onnx.export(
                network,
                (example_of(model, nhwc),),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:
        raise refused("ONNX", error) from error


def refused(kind: str, error: Exception) -> IsthmusError:
    """The error to raise where a network can't be converted."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return IsthmusError(
        f"This network can't be written as {kind} ({reason}); use the model itself, or another backbone."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block converters keep their warnings and notes to themselves: what matters is measured afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def tools(*names: str) -> dict[str, str]:
    """Version of each package that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
