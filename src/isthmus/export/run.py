"""`export_model`: a folder for ONNX Runtime or OpenVINO that is written only if its vectors are the model's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from isthmus import __version__
from isthmus.data.images import load_image
from isthmus.data.loading import prefetch
from isthmus.data.manifest import Row
from isthmus.errors import IsthmusError
from isthmus.export.files import require_exporter, tools, write_onnx, write_openvino
from isthmus.export.integers import quantise
from isthmus.export.parity import Parity, Rows, change_in_map, compare
from isthmus.io import atomic_folder, explain_os_errors, read_json, stable_hash
from isthmus.models.card import model_card
from isthmus.models.encoder import Model
from isthmus.models.exported import KIND, MEANS, TOLERANCE, ExportedModel, hash_of, load_export, own_fingerprint, seal
from isthmus.models.runtimes import ONNX, OPENVINO, import_runtime

Format = Literal["onnx", "openvino", "int8"]
Layout = Literal["nchw", "nhwc"]
FORMATS: tuple[str, ...] = get_args(Format)
LAYOUTS: tuple[str, ...] = get_args(Layout)
CALIBRATION_BATCH = 16
PACKAGES = ("torch", "timm", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Attributes:
        folder: where it is.
        fingerprint: the source's for float formats.
        source: the source's fingerprint.
        parity: on the images that were given for it.
        scores: as of `change_in_map`; None where there were no validation images.
    """

    folder: str
    fingerprint: str
    source: str
    parity: Parity
    scores: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "folder": self.folder, "fingerprint": self.fingerprint, "source": self.source,
            "parity": self.parity.to_dict(), "tolerance": TOLERANCE, "scores": self.scores,
        }  # fmt: skip


def export_model(
    model: Model,
    out: str | Path,
    form: Format,
    check: tuple[Sequence[Row], Sequence[Row]],
    *,
    calibration: tuple[Sequence[Row], Sequence[Row]] | None = None,
    validation: Rows | None = None,
    layout: Layout = "nchw",
    workers: int = 2,
) -> Exported:
    """Write a model's networks for another runtime, with all that `isthmus.load` needs.

    Args:
        model: an encoder.
        out: the folder; an older export there is replaced, anything else is left alone.
        form: `"onnx"` and `"openvino"` in float32, or `"int8"` (ONNX).
        check: images of the query domain and the gallery domain that parity is measured on.
        calibration: training images of both; for int8 only, and needed there.
        validation: labelled validation images for the change in mAP.
        layout: of the network's uint8 images, (n, 3, height, width) or (n, height, width, 3).
        workers: threads that decode.

    Returns:
        What was measured. A float format whose vectors differ by more than `TOLERANCE` in any component is not written.

    Raises:
        MissingExtraError: a package is missing.
        IsthmusError: an unknown format, an export given as model, `out` in use, or vectors too far from the model's.

    Example:
        >>> export_model(model, "exported", "onnx", (sketches, photos)).parity.largest      # doctest: +SKIP
        1.1e-07
    """
    runtime = check_wishes(model, Path(out), form, layout)
    if form == "int8" and not (calibration and all(calibration)):
        raise IsthmusError("int8 is calibrated on training images of both domains, and there are none; name some.")
    with atomic_folder(out) as scratch, explain_os_errors(out):
        write = write_openvino if form == "openvino" else write_onnx
        graphs = write(model, scratch, nhwc=layout == "nhwc")
        if form == "int8":
            assert calibration is not None
            _quantise(model, scratch, graphs, calibration, layout, workers)
        _write_means(model, scratch)
        files = {path.name: hash_of(path) for path in sorted(scratch.iterdir())}
        facts: dict[str, Any] = {
            "format": form, "runtime": runtime, "layout": layout, "dim": model.dim, "graphs": graphs, "files": files,
            "source": model.fingerprint, "tolerance": TOLERANCE,
            "calibration": [len(side) for side in calibration] if form == "int8" and calibration else None,
            "tools": {"isthmus": __version__, **tools(*PACKAGES)},
        }  # fmt: skip
        config = {**model._description(), "kind": KIND, KIND: facts, "provenance": model.provenance}
        config["fingerprint"] = own_fingerprint(config) if form == "int8" else model.fingerprint
        trial = _opened(model, scratch, config)
        parity = compare(
            model, trial, ([row.path for row in check[0]], [row.path for row in check[1]]), workers=workers
        )
        if form != "int8" and not parity.largest <= TOLERANCE:
            raise IsthmusError(
                f"The {form} export gives other vectors than the model: they differ by up to {parity.largest:.1e}, and "
                f"{TOLERANCE:.0e} is the most that is let through; nothing was written. Choose another --format."
            )
        scores = change_in_map(model, trial, validation, workers=workers) if validation is not None else None
        facts |= {"parity": parity.to_dict(), "scores": scores}
        config["seal"] = seal(config)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (scratch / "config.json").write_text(text, encoding="utf-8")
        (scratch / "README.md").write_text(model_card(config), encoding="utf-8")
        for name, content in model.beside.items():
            (scratch / name).write_bytes(content)
        del trial  # its runtime may hold the files open
        load_export(scratch, json.loads(text))  # what was written can be read
    return Exported(str(out), str(config["fingerprint"]), model.fingerprint, parity, scores)


def check_wishes(model: Model, out: Path, form: str, layout: str) -> str:
    """Find what is wrong before any work begins; the name of the runtime.

    Raises:
        IsthmusError: as of `export_model`.
    """
    if form not in FORMATS:
        raise IsthmusError(f"--format is {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, not '{form}'.")
    if layout not in LAYOUTS:
        raise IsthmusError(f"--layout is {' or '.join(LAYOUTS)}, not '{layout}'.")
    if isinstance(model, ExportedModel):
        raise IsthmusError(f"{model.folder} is an export already; name the run or model that it was made from.")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not _is_export(out)):
        raise IsthmusError(f"{out} holds something else than an export; choose another --out.")
    runtime = OPENVINO if form == "openvino" else ONNX
    import_runtime(runtime)
    require_exporter()
    return runtime


def drawn(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` rows, drawn by a hash of their ids: the same ones in whatever order they come."""
    return sorted(rows, key=lambda row: stable_hash("export", row.id))[:most]


def _is_export(folder: Path) -> bool:
    try:
        config = read_json(folder / "config.json")
    except IsthmusError:
        return False
    return isinstance(config, dict) and config.get("kind") == KIND


def _write_means(model: Model, folder: Path) -> None:
    from safetensors.torch import save

    (folder / MEANS).write_bytes(save({"means": model.means.detach().cpu().float().contiguous().clone()}))


def _opened(model: Model, folder: Path, config: dict[str, Any]) -> ExportedModel:
    """The export before it is measured: nothing that it claims has been checked yet."""
    from isthmus.models.exported import ExportedNetwork

    stand_in: Any = ExportedNetwork(model.dim)
    means = model.means.detach().cpu().float()
    return ExportedModel(
        model.architecture, stand_in, model.preprocessing, model.domains, means, model.centring,
        folder=folder, facts=config[KIND], identity=str(config["fingerprint"]),
    )  # fmt: skip


def _quantise(
    model: Model, folder: Path, graphs: list[str], rows: tuple[Sequence[Row], Sequence[Row]], layout: str, workers: int
) -> None:
    for graph in dict.fromkeys(graphs):
        batches = []
        for domain in (0, 1):
            if graphs[domain] != graph:
                continue

            def view(row: Row, domain: int = domain) -> torch.Tensor:
                image = load_image(row.path, min_side=model.preprocessing.min_side)
                return model.preprocessing(image, domain)

            views = list(prefetch(list(rows[domain]), view, workers, ahead=2 * max(1, workers)))
            for start in range(0, len(views), CALIBRATION_BATCH):
                batch = torch.stack(views[start : start + CALIBRATION_BATCH])
                batches.append((batch.permute(0, 2, 3, 1) if layout == "nhwc" else batch).contiguous().numpy())
        quantise(folder / graph, batches)
