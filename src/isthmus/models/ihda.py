"""What IHDA trains: an encoder a domain, and heads for identities, attributes and domains."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import IsthmusError
from isthmus.io import read_json
from isthmus.models.backbones import read_weights
from isthmus.models.encoder import Model
from isthmus.models.heads import mlp
from isthmus.models.hub import local
from isthmus.models.modules import Encoder, Features, Towers, active_domain

HEADS = ("source_identity", "identity", "attributes", "domain")
FILE = "attributes.safetensors"


@dataclass
class IhdaModel(Model):
    """A `Model` with the head that reads attributes off an image of either domain.

    Attributes:
        attributes: names, in the order of the head's outputs.
        shape: the attribute head's settings, `hidden`, `style` and `dropout` of `mlp`.
        heads: by name; a loaded model has the attribute head only.

    Example:
        >>> model = IhdaModel.load("runs/shoes")                                            # doctest: +SKIP
        >>> model.attribute_probabilities(views, domain=0).shape                            # doctest: +SKIP
        torch.Size([8, 21])
    """

    attributes: tuple[str, ...] = ()
    shape: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, nn.Module] = field(default_factory=dict)

    def encoders(self) -> dict[str, Encoder]:
        """The parts that see images: `query` and `gallery`, or one `encoder` for both."""
        if isinstance(self.encoder, Towers):
            return {"query": self.encoder.tower(0), "gallery": self.encoder.tower(1)}
        return {"encoder": self.encoder}

    def modules(self) -> dict[str, nn.Module]:
        """Encoders and heads, each with an optimiser of its own."""
        return {**self.encoders(), **self.heads}

    def encoder_name(self, domain: int) -> str:
        """The part that a domain's images go through."""
        return ("query", "gallery")[domain] if isinstance(self.encoder, Towers) else "encoder"

    def start_from(self, path: str | Path) -> None:
        """Take over the encoder and the attribute head of a run.

        Raises:
            IsthmusError: it has another architecture or other attributes.
        """
        other = IhdaModel.load(path)
        mine, theirs = asdict(self.architecture), asdict(other.architecture)
        different = [name for name in mine if mine[name] != theirs[name]]
        if different:
            name = different[0]
            raise IsthmusError(
                f"ihda.start = {path} can't be started from: its {name} is {theirs[name]}, here it is {mine[name]}; "
                "set both alike."
            )
        looks = "query_filter and gallery_filter", self.preprocessing.filters, other.preprocessing.filters
        for name, here, there in (("domains", self.domains, other.domains), looks):
            # Of another look the weights fit, and see what they have never seen.
            if here != there:
                raise IsthmusError(
                    f"ihda.start = {path} can't be started from: its {name} are {' and '.join(there)}, here they are "
                    f"{' and '.join(here)}; set both alike."
                )
        if (self.attributes, self.shape) != (other.attributes, other.shape):
            raise IsthmusError(
                f"ihda.start = {path} has another attribute head ({', '.join(other.attributes)}; {other.shape}) than "
                f"this run ({', '.join(self.attributes)}; {self.shape}); use the same source columns and ihda.head_*."
            )
        self.encoder.load_state_dict(other.encoder.state_dict())
        self.heads["attributes"].load_state_dict(other.heads["attributes"].state_dict())

    @torch.inference_mode()
    def attribute_probabilities(self, views: Tensor, domain: int) -> Tensor:
        """Probabilities float32 (n, a) in [0, 1] of uint8 (n, 3, height, width), in the order of `attributes`."""
        head = self.heads["attributes"].to(self.device).eval()
        self.encoder.eval()
        images = self.preprocessing.normalise(views.to(self.device)).contiguous(memory_format=torch.channels_last)
        with active_domain(self.encoder, domain):
            features = self.encoder(images, True)
        assert isinstance(features, Features)
        logits: Tensor = head(features.pooled)
        return logits.float().sigmoid()

    def _more(self) -> dict[str, Any]:
        return {"attributes": {"names": list(self.attributes), **self.shape}} if self.attributes else {}

    def _save_more(self, scratch: Path) -> None:
        from safetensors.torch import save

        if self.attributes:
            tensors = {k: v.detach().cpu().contiguous() for k, v in self.heads["attributes"].state_dict().items()}
            (scratch / FILE).write_bytes(save(tensors))

    @classmethod
    def load(cls, path: str | Path) -> IhdaModel:
        """Read a model folder, or a run folder that holds one, with its attribute head.

        Raises:
            IsthmusError: it is no model, or one without an attribute head.
        """
        path = local(path)
        base = Model.load(path)
        folder = Path(path) / "model" if (Path(path) / "model" / "config.json").is_file() else Path(path)
        described = dict(read_json(folder / "config.json").get("attributes", {}))
        if not described:
            raise IsthmusError(
                f"{path} has no attribute head: only  isthmus train --method ihda  with an attribute-labelled source "
                "makes one."
            )
        try:
            names = tuple(str(name) for name in described.pop("names"))
            head = mlp(base.dim, len(names), **described)
            head.load_state_dict(read_weights(folder / FILE))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise IsthmusError(f"{folder / FILE} does not fit its config.json; fetch both again.") from error
        values = {name: getattr(base, name) for name in Model.__dataclass_fields__}
        return cls(**values, attributes=names, shape=described, heads={"attributes": head.eval()})
