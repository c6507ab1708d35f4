"""An exported model: the networks in files of ONNX Runtime or OpenVINO, everything else as in any model's folder.

Which vectors may be compared. A float export gives the vectors of the model that it was made from, to a tolerance that
was measured on real images before the folder was written. It therefore has that model's fingerprint, and a catalog of
the one takes the other. What makes this safe is the seal: a hash of the networks' files, the means, the preprocessing,
the source's fingerprint and the measured difference. A folder in which any of these was changed is refused. An int8
export gives other vectors, and has a fingerprint of its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.io import canonical_json, fingerprint
from isthmus.models.backbones import read_weights
from isthmus.models.encoder import BESIDE, FORMAT, Architecture, Model, _tuples
from isthmus.models.runtimes import ONNX, Runtime, import_runtime, open_runtime

KIND = "export"
MEANS = "means.safetensors"
TOLERANCE = 1e-4  # largest difference of any component of a unit vector, plain or centred
SEALED = ("format", "runtime", "layout", "graphs", "files", "source", "parity", "tolerance")


class ExportedNetwork(nn.Module):
    """Stands where a model has its encoder; nothing of it can be trained or moved to another device."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, images: Tensor) -> NoReturn:
        """Refuses: an export takes whole images through `Model.encode`."""
        raise IsthmusError("An export has no encoder to train or to look into; load the model that it was made from.")

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses any device but the CPU."""
        places = [part for part in (*args, kwargs.get("device")) if isinstance(part, str | torch.device)]
        if any(torch.device(part).type != "cpu" for part in places):
            raise IsthmusError("An export computes on the CPU alone; for a GPU name the model that it was made from.")
        return self


@dataclass
class ExportedModel(Model):
    """A `Model` whose network runs in another runtime; `encode`, `domains`, `dim` and the rest are the same.

    Attributes:
        folder: where its files are.
        facts: what `config.json` says of the export: format, runtime, layout, parity, tools.

    Example:
        >>> model = isthmus.load("exported")                                                # doctest: +SKIP
        >>> model.encode(["cat.png"], domain="sketch").shape                                # doctest: +SKIP
        (1, 512)
    """

    folder: Path = Path()
    facts: dict[str, Any] = field(default_factory=dict)
    identity: str = ""
    _runtimes: dict[tuple[str, bool], Runtime] = field(default_factory=dict, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def fingerprint(self) -> str:
        """The source's for float formats, one of its own for int8."""
        return self.identity

    def refuse_precision(self, precision: str) -> None:
        """Raise where the networks can't compute in it: of the runtimes OpenVINO alone has bfloat16."""
        if precision == "bfloat16" and (self.facts["runtime"] == ONNX or self.facts["format"] == "int8"):
            raise IsthmusError(
                f"The export {self.folder} computes in its own precision ({self.facts['format']}); leave bfloat16 out, "
                "or export with --format openvino."
            )

    def embed(self, views: Tensor, domain: int, *, autocast: bool = False) -> Tensor:
        """Unit vectors float32 (n, dim) of filtered views uint8 (n, 3, height, width), not centred."""
        if not len(views):
            return torch.empty(0, self.dim)
        images = views.cpu().permute(0, 2, 3, 1) if self.facts["layout"] == "nhwc" else views.cpu()
        key = str(self.facts["graphs"][domain]), autocast
        if key not in self._runtimes:
            self._runtimes[key] = open_runtime(self.facts["runtime"], self.folder / key[0], bfloat16=autocast)
        return torch.from_numpy(self._runtimes[key](np.ascontiguousarray(images.numpy())))

    def save(self, folder: str | Path) -> None:
        """Refuses: a folder of an export is copied."""
        raise IsthmusError(f"An export is not saved anew; copy its folder {self.folder}.")


def description_of(config: dict[str, Any]) -> dict[str, Any]:
    """The part of an export's `config.json` that every model has and that its vectors depend on."""
    return {name: config[name] for name in ("format", "architecture", "preprocessing", "domains", "centring")}


def seal(config: dict[str, Any]) -> str:
    """Hash of everything that an export's vectors depend on, and of what was measured; see the module."""
    facts = {name: config[KIND][name] for name in SEALED}
    return hashlib.sha256(canonical_json([description_of(config), facts, config["fingerprint"]]).encode()).hexdigest()


def own_fingerprint(config: dict[str, Any]) -> str:
    """The fingerprint of an export whose vectors are not those of its source."""
    facts = config[KIND]
    return fingerprint([description_of(config), facts["format"], facts["files"], facts["source"]])


def hash_of(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_export(folder: Path, config: dict[str, Any]) -> ExportedModel:
    """Read an export's folder; the networks are compiled at first use.

    Args:
        folder: it.
        config: its `config.json`.

    Raises:
        MissingExtraError: its runtime is not installed.
        IsthmusError: a file is missing or was changed since, or it is of another version.
    """
    anew = "make it anew with  isthmus export, or fetch all its files again"
    try:
        facts = dict(config[KIND])
        if config.get("format") != FORMAT or seal(config) != config["seal"]:
            raise IsthmusError(f"{folder}/config.json was changed since the export, or is of another version; {anew}.")
        architecture = Architecture(**_tuples(config["architecture"]))
        preprocessing = Preprocessing(**_tuples(config["preprocessing"]))
        domains = (str(config["domains"][0]), str(config["domains"][1]))
        graphs = [str(name) for name in facts["graphs"]]
        files = {str(name): str(digest) for name, digest in facts["files"].items()}
        right = facts["source"] if facts["format"] != "int8" else own_fingerprint(config)
        parity = float(facts["parity"]["largest"])
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise IsthmusError(f"{folder}/config.json is incomplete ({error}); {anew}.") from error
    if config["fingerprint"] != right or (facts["format"] != "int8" and not parity <= TOLERANCE):
        raise IsthmusError(f"{folder} claims to be a model that it was not found equal to; {anew}.")
    if {*graphs, MEANS} - files.keys() or len(graphs) != 2:
        raise IsthmusError(f"{folder}/config.json lists no networks for both domains; {anew}.")
    for name, digest in files.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise IsthmusError(f"The export {folder} lacks its file {name}; {anew}.")
        if hash_of(folder / name) != digest:
            raise IsthmusError(f"{folder / name} is damaged or was changed since the export; {anew}.")
    import_runtime(facts["runtime"])
    means = read_weights(folder / MEANS).get("means", torch.empty(0))
    if means.ndim != 2 or len(means) != 2:
        raise IsthmusError(f"{folder / MEANS} holds no means of two domains; {anew}.")
    beside = {name: (folder / name).read_bytes() for name in BESIDE if (folder / name).is_file()}
    stand_in: Any = ExportedNetwork(means.shape[1])
    return ExportedModel(
        architecture, stand_in, preprocessing, domains, means, bool(config["centring"]),
        dict(config.get("provenance", {})), beside, folder=folder, facts=facts, identity=str(config["fingerprint"]),
    )  # fmt: skip
