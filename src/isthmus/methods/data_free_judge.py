"""How data-free training goes, as far as can be said without an image: what is made, and who agrees on it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from isthmus.data.manifest import Row
from isthmus.data.sheets import Tile, contact_sheet
from isthmus.io import atomic_write_bytes, make_folder, stable_hash
from isthmus.methods.base import Verdict
from isthmus.methods.data_free_generators import frozen
from isthmus.methods.data_free_images import Pictures, draw_classes, gaussian
from isthmus.models.data_free import GENERATORS
from isthmus.models.modules import active_domain
from isthmus.models.teachers import SIDES

if TYPE_CHECKING:
    from isthmus.methods.data_free import DataFree

LOOKED_AT = 256  # pairs an epoch
AT_ONCE = 64
ALIKE = 0.02  # mean deviation of a pixel between images, of 1, below which they are one image
ONE_A_CLASS = 0.25  # of the deviation between all images: below, a generator makes one image a class
COVERED = 0.5  # share of classes below which a generator has collapsed


class DataFreeJudge:
    """The same noise after each epoch.

    Args:
        method: the run's.
        folder: for the grids.
    """

    def __init__(self, method: DataFree, folder: Path) -> None:
        self.method, self.folder = method, folder
        self.settings, self.teachers, self.model = method.config.data_free, method.teachers, method.model
        self._said: set[str] = set()

    def images(self) -> int:
        """Images looked at after each epoch."""
        return 2 * LOOKED_AT

    def probe(self, rows: list[Row]) -> None:
        """There are no images of anybody's: a look costs what `verdict` costs."""
        self._answers(self._pictures())

    def verdict(self) -> Verdict:
        """Teachers' confidence and coverage, students' agreement with them, images a second of each phase; a grid."""
        made = self._pictures()
        logits, vectors = self._answers(made)
        figures, notes = dict[str, float](), list[str]()
        for side, name in enumerate(self.teachers.names):
            seen = logits[side].argmax(dim=1)
            sure = logits[side].softmax(dim=1).amax(dim=1).mean()
            count = len(self.teachers.sides[side].classes)
            figures[f"confidence/{name}"] = float(sure)
            figures[f"coverage/{name}"] = len(set(seen.tolist())) / count
            figures[f"diversity/{name}"] = float(made.images[side].std(dim=0).mean())
            if self.settings.images == "generators":
                wanted = made.codes[side] if self.settings.drawn_classes else seen
                figures[f"diversity_within/{name}"] = _within(made.images[side], wanted)
            known = self.teachers.known(side).cpu()
            proxies = self.method.proxies[side].cpu()[known]
            told = known[(self.model.learned_of(vectors[side]) @ proxies.T).argmax(dim=1)]
            columns = self.teachers.columns[side].cpu()
            figures[f"agreement/{name}"] = float((columns[told] == seen).float().mean())
            if self.settings.images == "generators" and self.settings.drawn_classes:
                figures[f"obeyed/{name}"] = float((columns[made.codes[side].cpu()] == seen).float().mean())
            notes += self._collapse(side, name, figures)
        for phase, (images, seconds) in self.method.clock.items():
            if images:
                figures[f"{phase}_images_per_s"] = images / seconds
        self.method.clock = {phase: [0.0, 0.0] for phase in self.method.clock}
        if self.settings.images == "generators" and self.settings.samples:
            self._grid(made, logits)
        varied = all(figures[f"diversity/{name}"] >= ALIKE for name in self.teachers.names)
        return Verdict(figures, torch.stack([part.mean(dim=0) for part in vectors]), tuple(notes), varied)

    def _collapse(self, side: int, name: str, figures: dict[str, float]) -> list[str]:
        """A sentence when a generator has collapsed; said once."""
        if self.settings.images != "generators" or not self.method.begun:
            return []
        found = []
        if figures[f"diversity/{name}"] < ALIKE:
            found.append(
                f"The {name} generator has collapsed: all its images look alike. Lower data_free.generator_rate, or "
                "raise data_free.entropy_weight and statistics_weight."
            )
        elif figures[f"diversity_within/{name}"] < ONE_A_CLASS * figures[f"diversity/{name}"]:
            found.append(
                f"The {name} generator ignores its noise: it makes nearly one image a class. Raise "
                "data_free.diversity_weight, or lower semantic_weight."
            )
        elif figures[f"coverage/{name}"] < COVERED:
            found.append(
                f"The {name} generator shows its teacher {figures[f'coverage/{name}']:.0%} of the classes only; raise "
                "data_free.entropy_weight or semantic_weight, or train longer."
            )
        new = [text for text in found if text[:40] not in self._said]
        self._said |= {text[:40] for text in new}
        return new

    @torch.no_grad()
    def _pictures(self) -> Pictures:
        settings = self.settings
        dice = torch.Generator().manual_seed(stable_hash("judge", self.method.config.seed) >> 1)
        if self.method.bank is not None and settings.images in ("inverted", "bank"):
            if not len(self.method.bank):  # an estimate asks before the images are made
                return Pictures(self._noise(dice), self._codes(dice), True)
            drawn = self.method.bank.draw(LOOKED_AT, dice)
            codes = (drawn.sketch_codes, drawn.photo_codes)
            return Pictures((drawn.sketches, drawn.photos), codes, True)
        if settings.images == "noise":
            return Pictures(self._noise(dice), self._codes(dice), False)
        codes = self._codes(dice)
        z = torch.randn(LOOKED_AT, settings.noise, generator=dice)
        made = []
        for side in SIDES:
            network = self.model.generators[GENERATORS[side]]
            columns = self.teachers.columns[side].cpu()[codes[side]] if settings.drawn_classes else None
            parts = []
            with frozen(network), self.method.autocast():
                for start in range(0, LOOKED_AT, AT_ONCE):
                    part = slice(start, start + AT_ONCE)
                    asked = None if columns is None else columns[part].to(self.method.device)
                    parts.append(network(z[part].to(self.method.device), asked).float())
            made.append(torch.cat(parts))
        return Pictures((made[0], made[1]), codes, True)

    def _noise(self, dice: torch.Generator) -> tuple[Tensor, Tensor]:
        query, gallery = (gaussian(LOOKED_AT, self.settings.image_size, dice).to(self.method.device) for _ in SIDES)
        return query, gallery

    def _codes(self, dice: torch.Generator) -> tuple[Tensor, Tensor]:
        return draw_classes(self.teachers, LOOKED_AT, dice)

    @torch.no_grad()
    def _answers(self, made: Pictures) -> tuple[list[Tensor], list[Tensor]]:
        """Each teacher's logits, and each student's unit vectors, on the CPU."""
        logits, vectors = [], []
        for side in SIDES:
            tower = self.model.student(side)
            said, seen = [], []
            with frozen(tower), active_domain(self.model.encoder, side):
                for start in range(0, len(made.images[side]), AT_ONCE):
                    images = made.images[side][start : start + AT_ONCE].to(self.method.device)
                    said.append(self.teachers.answer(side, images).logits.float().cpu())
                    seen.append(F.normalize(tower(self.model.input_of(images)).float(), dim=1).cpu())
            logits.append(torch.cat(said))
            vectors.append(torch.cat(seen))
        return logits, vectors

    def _grid(self, made: Pictures, logits: list[Tensor]) -> None:
        """A sheet of the epochs so far, `0000.png` untrained: a row a class, sketches beside photos."""
        settings, rows = self.settings, list[list[Tile | None]]()
        guesses = [part.argmax(dim=1).to(self.method.device) for part in logits]
        seen = [self.teachers.common(side, part).cpu() for side, part in enumerate(guesses)]
        for code, name in enumerate(self.teachers.classes[: settings.max_classes_shown]):
            row: list[Tile | None] = []
            for side in SIDES:
                wanted = made.codes[side].cpu() if settings.drawn_classes else seen[side]
                places = torch.nonzero(wanted == code).flatten().tolist()[: settings.samples]
                for place in places:
                    right = int(seen[side][place]) == code
                    row.append(Tile(_picture(made.images[side][place]), name, "green" if right else "red"))
                row += [None] * (settings.samples - len(places))
            rows.append(row)
        stream = io.BytesIO()
        title = f"{' and '.join(self.teachers.names)} by class; green: the teacher sees it"
        contact_sheet(rows, tile=max(72, min(128, settings.image_size)), title=title).save(stream, format="PNG")
        make_folder(self.folder)
        atomic_write_bytes(self.folder / f"{self.method.begun:04}.png", stream.getvalue())


class Untrained:
    """Nothing was trained and nothing is looked at."""

    def __init__(self, method: DataFree) -> None:
        self.width = method.model.dim

    def images(self) -> int:
        """None."""
        return 0

    def probe(self, rows: list[Row]) -> None:
        """Nothing."""

    def verdict(self) -> Verdict:
        """No figures, and no means."""
        return Verdict({}, torch.zeros(2, self.width))


def _within(images: Tensor, codes: Tensor) -> float:
    """Mean deviation of a pixel between images of one class; 0 where no class has two."""
    codes = codes.to(images.device)
    found = [images[codes == code].std(dim=0).mean() for code in set(codes.tolist()) if int((codes == code).sum()) > 1]
    return float(torch.stack(found).mean()) if found else 0.0


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
