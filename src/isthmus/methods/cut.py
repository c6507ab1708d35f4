"""CUT and FastCUT: unpaired image-to-image translation (Park et al., arXiv 2007.15651).

Each direction has a generator G with a head F on its patches, and a discriminator D of the target domain. For images x
of the source and y of the target:

    L_D   = 1/2 [ D(G(x))^2 + (D(y) - 1)^2 ]
    L_G,F = lambda_GAN (D(G(x)) - 1)^2 + lambda_NCE / 2 [ PatchNCE(G(x), x) + PatchNCE(G(y), y) ]

FastCUT leaves out the identity term PatchNCE(G(y), y), weighs the other with 10, and translates mirrored images in half
of the steps, whose patches must match those of the images as they were.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from isthmus.config import RunConfig
from isthmus.config.sizes import sides
from isthmus.data.images import load_image
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Row
from isthmus.data.samplers import epoch_batches, local_part
from isthmus.data.sheets import Tile, contact_sheet
from isthmus.data.training import TrainingData
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_bytes, make_folder, stable_hash
from isthmus.losses import least_squares_gan, patch_nce
from isthmus.methods.base import Method, Processes, Verdict
from isthmus.models.cut import CutModel, Translation
from isthmus.models.cut_networks import draw_places, mirror_places

SAMPLES = "samples"
LOAD_SIZE = 286 / 256  # side before the random crop, of the size: the paper's


class Plan(NamedTuple):
    """One step: positions in both domains' lists, over all processes, and what its random draws depend on."""

    positions: tuple[list[int], list[int]]
    draw: tuple[int, int, int]


class Batch(NamedTuple):
    """One process's share of a step: uint8 images (b, 3, h, w) of both domains."""

    images: tuple[Tensor, Tensor]
    draw: tuple[int, int, int]


class Cut(Method):
    """CUT, in one direction or both."""

    name = "cut"
    model: CutModel

    def __init__(
        self, config: RunConfig, model: CutModel, data: TrainingData, source: ImageSource, processes: Processes
    ) -> None:
        super().__init__(config, model, data, source, processes)
        if not (config.cut.gan_weight or config.cut.nce_weight):
            raise IsthmusError("All losses are switched off; set cut.gan_weight or cut.nce_weight above 0.")
        for rows, name in zip(data.train, data.names, strict=True):
            if len(rows) < processes.world:
                raise IsthmusError(f"Too few images to train on in '{name}': {len(rows)}; add images.")
        # Both domains give equally many: the small one must not come short of a full batch alone.
        wanted, fewest = config.train.batch_size, min(len(rows) for rows in data.train)
        self.batch_size = min(wanted, fewest - fewest % processes.world)
        if self.batch_size < wanted:
            said = f"{self.batch_size} a step instead of train.batch_size = {wanted}"
            data.notes.append(f"The smaller domain has {fewest} images to train on: {said}.")

    @classmethod
    def build(cls, config: RunConfig, data: TrainingData) -> CutModel:
        """Networks of random weights."""
        size, resize = sides(config.model.image_size)[0], config.augment.resize  # the settings' check: square
        resize = round(size * LOAD_SIZE) if resize is None else sides(resize)[0]
        return CutModel.create(config.cut, data.names, size, resize)

    def epoch(self, number: int) -> Sequence[Plan]:
        """One pass over the larger domain, or `train.steps_per_epoch` steps."""
        size, seed = self.batch_size, self.config.seed
        counts = [len(rows) for rows in self.data.train]
        steps = self.config.train.steps_per_epoch or max(1, max(counts) // size)
        a, b = (
            epoch_batches(counts[side], size, steps, seed=seed, epoch=number, name=self.data.names[side])
            for side in (0, 1)
        )
        return [Plan((x, y), (seed, number, step)) for step, (x, y) in enumerate(zip(a, b, strict=True))]

    def load(self, plan: Plan) -> Batch:
        """This process's share of the images, cropped and mirrored at random."""
        views = []
        for rows, positions in zip(self.data.train, plan.positions, strict=True):
            own = local_part(positions, self.processes.rank, self.processes.world)
            views.append(
                torch.stack([self.source.train_view(rows[i], self.config.augment, "cut", *plan.draw) for i in own])
            )
        return Batch((views[0], views[1]), plan.draw)

    def updates(self, batch: Batch) -> Iterator[tuple[str | tuple[str, ...], dict[str, Tensor]]]:
        """First the discriminators on the current translations, then generators and heads against the renewed ones."""
        settings = self.config.cut
        images = [self._input(part) for part in batch.images]
        steps = [_Direction(self, side, images, batch.draw) for side in self.model.sides]
        for step in steps:
            step.translate()
        if settings.gan_weight:
            yield "discriminator", {step.name("discriminator"): step.discriminator_loss() for step in steps}
        yield "generator", {name: loss for step in steps for name, loss in step.generator_losses().items()}

    def _input(self, views: Tensor) -> Tensor:
        images = self.model.preprocessing.normalise(views.to(self.device))
        return images.contiguous(memory_format=torch.channels_last) if self.config.train.channels_last else images

    def images_per_step(self) -> int:
        """Images of both domains a step, over all processes."""
        return 2 * self.batch_size

    def judge(self, out: Path, *, autocast: bool) -> SampleSheets:
        """Sample grids; which epoch is best they leave to the reader, so the last is kept."""
        return SampleSheets(self, out / SAMPLES)


class FastCut(Cut):
    """The lighter variant; the same code with other settings (its presets)."""

    name = "fastcut"


class _Direction:
    """One step of one direction."""

    def __init__(self, method: Cut, side: int, images: list[Tensor], draw: tuple[int, int, int]) -> None:
        self.method, self.side, self.settings = method, side, method.config.cut
        self.source, self.target = images[side], images[1 - side]
        member = method.model.translations.members[str(side)]
        assert isinstance(member, Translation)
        random_places = torch.Generator().manual_seed(stable_hash("places", side, *draw) >> 1)
        size = (self.source.shape[2], self.source.shape[3])
        self.places = draw_places(member.generator, member.wanted, size, self.settings.patches, random_places)
        self.seen = self.places  # where the translation shows what the source has at `places`
        self.mirrored = self.settings.flip_equivariance and random.Random(stable_hash("mirror", *draw)).random() < 0.5
        if self.mirrored:
            self.seen = mirror_places(member.generator, member.wanted, size, self.places)
        device = self.source.device
        self.places, self.seen = ([part.to(device) for part in parts] for parts in (self.places, self.seen))

    def name(self, term: str) -> str:
        """As in the log: the term and the direction's target."""
        return f"{term}/{self.method.data.names[1 - self.side]}"

    def translate(self) -> None:
        """Translate the source, and with the identity term the target; keep what their patches look like."""
        network = self.method.networks["generator"]
        inputs = torch.cat([self.source, self.target]) if self.settings.identity else self.source
        turned = inputs.flip(3) if self.mirrored else inputs
        made, self.keys = network(self.side, turned, self.seen, decode=True)
        # A mirrored image's features are not the mirrored features: borders and strides are not symmetric.
        if self.mirrored and self.settings.nce_weight:
            with torch.no_grad():
                _, self.keys = network(self.side, inputs, self.places, decode=False)
        self.made: Tensor = made
        self.fake = made[: len(self.source)]

    def discriminator_loss(self) -> Tensor:
        """L_D: made and real images in one pass, for its norms look at one image at a time."""
        judge = self.method.networks["discriminator"]
        scores = judge(self.side, torch.cat([self.fake.detach(), self.target]))
        made, real = scores[: len(self.fake)], scores[len(self.fake) :]
        return (least_squares_gan(made, real=False) + least_squares_gan(real, real=True)) / 2

    def generator_losses(self) -> dict[str, Tensor]:
        """Weighted `adversarial`, `patches` and `identity`; terms of weight 0 are not computed."""
        settings = self.settings
        terms: dict[str, Tensor] = {}
        if settings.gan_weight:
            judge = self.method.model.discriminators
            # Its own gradients are not wanted here: without this they would cost a third of its pass back.
            judge.requires_grad_(False)
            with self.method.autocast():
                scores = judge(self.side, self.fake)
            judge.requires_grad_(True)
            terms[self.name("adversarial")] = settings.gan_weight * least_squares_gan(scores.float(), real=True)
        if settings.nce_weight:
            _, queries = self.method.networks["generator"](self.side, self.made, self.seen, decode=False)
            count = len(self.source)
            weight = settings.nce_weight / (2 if settings.identity else 1)
            terms[self.name("patches")] = weight * self._nce(queries, slice(0, count))
            if settings.identity:
                terms[self.name("identity")] = weight * self._nce(queries, slice(count, None))
        return terms

    def _nce(self, queries: list[Tensor], part: slice) -> Tensor:
        each = [
            patch_nce(query[part], key[part], self.settings.temperature)
            for query, key in zip(queries, self.keys, strict=True)
        ]
        return torch.stack(each).mean()


class SampleSheets:
    """A contact sheet an epoch: images of each domain and their translations, always the same ones."""

    def __init__(self, method: Cut, folder: Path) -> None:
        self.method, self.model, self.folder = method, method.model, folder
        seed, count, data = method.config.seed, method.config.cut.samples, method.data
        self.rows = [
            sorted(val or train, key=lambda row: stable_hash("sample", seed, row.id))[:count]
            for val, train in zip(data.val, data.train, strict=True)
        ]

    def verdict(self) -> Verdict:
        """Write the sheet of the epochs so far, `0000.png` untrained; there is no figure to choose by."""
        if not any(self.rows):
            return Verdict({})
        tiles: list[list[Tile | None]] = []
        for side in self.model.sides:
            name = self.model.domains[side]
            pictures, made = self._translate(side, self.rows[side])
            tiles.append([Tile(picture, name, "blue") for picture in pictures])
            tiles.append([Tile(picture, self.model.domains[1 - side]) for picture in made])
        stream = io.BytesIO()
        contact_sheet(tiles, tile=max(96, min(256, self.model.side))).save(stream, format="PNG")
        make_folder(self.folder)
        atomic_write_bytes(self.folder / f"{self.method.begun:04}.png", stream.getvalue())
        return Verdict({})

    def _translate(self, side: int, rows: list[Row]) -> tuple[list[Image.Image], list[Image.Image]]:
        """The images of some rows, and their translations."""
        pictures = [load_image(row.path, min_side=self.model.side) for row in rows]
        return pictures, self.model.translate(pictures, side)

    def probe(self, rows: list[Row]) -> None:
        """Translate some images."""
        for start in range(0, len(rows), 8):
            self._translate(self.model.sides[0], rows[start : start + 8])

    def images(self) -> int:
        """Images translated after each epoch."""
        return sum(len(self.rows[side]) for side in self.model.sides)
