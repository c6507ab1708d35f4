"""A trained CUT: the generators that turn images of one domain into the look of the other, as a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from isthmus.config import CutConfig
from isthmus.config.sizes import sides
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.io import atomic_folder, atomic_write_json, canonical_json, explain_os_errors, read_json
from isthmus.models.cut_networks import Discriminator, Generator, PatchHead

FORMAT = 1
KIND = "cut"
HALF = (0.5, 0.5, 0.5)  # to [-1, 1]


class Translation(nn.Module):
    """The generator of one direction with the head on its patches."""

    def __init__(self, settings: CutConfig) -> None:
        super().__init__()
        self.wanted = sorted(set(settings.layers))
        self.generator = Generator(settings.width, settings.blocks)
        self.head = PatchHead([self.generator.channels(number) for number in self.wanted], settings.patch_dim)
        # Weights that no loss reaches would keep several processes waiting for their gradients.
        self.head.requires_grad_(settings.nce_weight > 0)

    def forward(self, images: Tensor, places: Sequence[Tensor], *, decode: bool) -> tuple[Tensor | None, list[Tensor]]:
        """Translations and unit vectors of their patches.

        Args:
            images: (b, 3, h, w) in [-1, 1].
            places: for each layer (p,) positions.
            decode: translate, and give the patches as constants, for they are the source's; else no translation, and
                patches with gradients, for they are the translation's.

        Returns:
            (b, 3, h, w) or None, and for each layer (b, p, dim).
        """
        out, patches = self.generator.with_patches(images, self.wanted, places, decode=decode)
        if decode:
            with torch.no_grad():
                return out, self.head([part.detach() for part in patches])
        return out, self.head(patches)


class Pair(nn.Module):
    """One module for each trained direction, by the number of its source domain; so both are one part of a run."""

    def __init__(self, members: dict[int, nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleDict({str(side): member for side, member in members.items()})

    def forward(self, side: int, *args: Any, **kwargs: Any) -> Any:
        """The member of `side`, called with the rest."""
        return self.members[str(side)](*args, **kwargs)


@dataclass
class CutModel:
    """Two domains and the networks that turn one into the other.

    Attributes:
        settings: the networks' settings.
        preprocessing: how an image becomes their input.
        domains: the two domains' names.
        translations: a `Translation` for each trained direction.
        discriminators: a `Discriminator` for each, of the target domain; they are not saved with the model.
        provenance: method, settings and data, as training left them.
    """

    settings: CutConfig
    preprocessing: Preprocessing
    domains: tuple[str, str]
    translations: Pair
    discriminators: Pair
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def create(
        cls, settings: CutConfig, domains: tuple[str, str], image_size: int, resize: int | None = None
    ) -> CutModel:
        """Networks of random weights; `resize` is the side before the training's random crop."""
        sides = {"both": (0, 1), "query-to-gallery": (0,), "gallery-to-query": (1,)}[settings.direction]
        preprocessing = Preprocessing(image_size, resize or image_size, HALF, HALF, "bicubic")
        return cls(
            settings,
            preprocessing,
            domains,
            Pair({side: Translation(settings) for side in sides}),
            Pair({side: Discriminator(settings.discriminator_width) for side in sides}),
        )

    @property
    def sides(self) -> tuple[int, ...]:
        """The source domains of the directions that there are."""
        return tuple(sorted(int(side) for side in self.translations.members))

    @property
    def side(self) -> int:
        """Side in pixels of the square images that the training saw."""
        return sides(self.preprocessing.size)[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.translations.parameters()).device

    @property
    def main(self) -> nn.Module:
        """The network whose speed is the run's: images to images."""
        return self.generator(self.sides[0])

    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by the name of its optimiser."""
        return {"generator": self.translations, "discriminator": self.discriminators}

    def generator(self, side: int) -> Generator:
        """The generator from domain `side` to the other."""
        member = self.translations.members[str(side)]
        assert isinstance(member, Translation)
        return member.generator

    def side_to(self, target: str) -> int:
        """The source domain of the direction to `target`; a direction that was not trained is an error."""
        names = [self.domains[1 - side] for side in self.sides]
        if target not in names:
            raise IsthmusError(f"This CUT translates to {' and '.join(names)}, not to '{target}'; train one that does.")
        return self.sides[names.index(target)]

    @torch.inference_mode()
    def translate(self, images: Sequence[Image.Image], side: int, size: int | None = None) -> list[Image.Image]:
        """RGB images of domain `side` in the look of the other, `size` x `size` (the training's size if None)."""
        side_length = size or self.side
        whole = Preprocessing(side_length, side_length, HALF, HALF, self.preprocessing.interpolation)
        batch = whole.normalise(torch.stack([whole.pixels(image) for image in images]).to(self.device))
        return to_images(self.generator(side)(batch))

    def save(self, folder: str | Path) -> None:
        """Write config.json and generators.safetensors, whole or not at all."""
        from safetensors.torch import save

        with atomic_folder(folder) as place, explain_os_errors(folder):
            config = {
                "format": FORMAT,
                "kind": KIND,
                "settings": self.settings.model_dump(mode="json"),
                "domains": list(self.domains),
                "image_size": self.side,
                "resize": self.preprocessing.resize,
                "provenance": self.provenance,
            }
            atomic_write_json(place / "config.json", config)
            state = {
                f"{side}.{name}": value.detach().cpu().contiguous()
                for side in self.sides
                for name, value in self.generator(side).state_dict().items()
            }
            (place / "generators.safetensors").write_bytes(save(state))

    @classmethod
    def load(cls, folder: str | Path) -> CutModel:
        """Read a run's folder, or the `model` folder in it.

        Raises:
            IsthmusError: there is no trained CUT, or its files are damaged.
        """
        from safetensors.torch import load_file

        place = Path(folder)
        place = place / "model" if (place / "model" / "config.json").is_file() else place
        if not (place / "config.json").is_file():
            raise IsthmusError(
                f"{folder} holds no trained CUT; make one with  isthmus train --method cut --out {folder}."
            )
        config = read_json(place / "config.json")
        if not isinstance(config, dict) or config.get("kind") != KIND:
            raise IsthmusError(f"{folder} holds no CUT but another model; name a run of  isthmus train --method cut.")
        if config.get("format") != FORMAT:
            raise IsthmusError(f"{folder} was written by another version of Isthmus (format {config.get('format')}).")
        try:
            settings = CutConfig.model_validate(config["settings"])
            first, second = config["domains"]
            model = cls.create(settings, (first, second), config["image_size"], config["resize"])
            state = load_file(str(place / "generators.safetensors"))
            for side in model.sides:
                prefix = f"{side}."
                own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                model.generator(side).load_state_dict(own)
        except Exception as error:
            raise IsthmusError(
                f"The CUT in {place} is damaged ({str(error).splitlines()[0]}); train it again."
            ) from error
        model.provenance = config.get("provenance", {})
        model.translations.eval()
        return model

    @property
    def fingerprint(self) -> str:
        """Of the generators' weights and settings: another one gives other pictures."""
        digest = hashlib.sha256(canonical_json(self.settings.model_dump(mode="json")).encode())
        for side in self.sides:
            for name, value in sorted(self.generator(side).state_dict().items()):
                digest.update(f"{side}.{name}".encode())
                digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def to_images(values: Tensor) -> list[Image.Image]:
    """(b, 3, h, w) in [-1, 1] -> RGB pictures."""
    pixels = ((values.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in pixels]
