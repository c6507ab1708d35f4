"""Batch size found by trying, schedulers by name, squares and back, noise of an image."""

from __future__ import annotations

import mmap
import time

import numpy as np
import pytest
import torch
from diffusion_zoo import pictures, scheduler
from PIL import Image

from isthmus.errors import IsthmusError
from isthmus.translate.diffusion import fit as fitting
from isthmus.translate.diffusion.explain import explain_running
from isthmus.translate.diffusion.fit import current_memory, find_batch_size, watch_memory
from isthmus.translate.diffusion.noise import generators, initial_noise
from isthmus.translate.diffusion.schedulers import known_schedulers, make_scheduler, short_name
from isthmus.translate.diffusion.shape import Square, to_picture


class Machine:
    """A device that takes a fixed time a call and some an image, and has room for so many images."""

    def __init__(self, fixed: float, each: float, room: int = 1000) -> None:
        self.fixed, self.each, self.room, self.now = fixed, each, room, 0.0
        self.tried: list[int] = []

    def run(self, size: int) -> None:
        self.tried.append(size)
        if size > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.now += self.fixed + self.each * size

    def clock(self) -> float:
        return self.now


def test_the_batch_grows_while_that_makes_it_faster() -> None:
    machine = Machine(fixed=4.0, each=1.0)
    found = find_batch_size(machine.run, "cpu", free=lambda: None, clock=machine.clock)
    # Rates: 0.2, 0.33, 0.5, 0.67, 0.8, 0.89, 0.94: the last doubling that brings 5 % is to 64.
    assert found.size == 64 and machine.tried == [1, 2, 4, 8, 16, 32, 64]
    slow = Machine(fixed=0.5, each=1.0)
    found = find_batch_size(slow.run, "cpu", free=lambda: None, clock=slow.clock)
    # Rates: .667, .8, .889, .941 (+5.9 %), .970 (+3 %).
    assert found.size == 8 and slow.tried[-1] == 16 and "16 is hardly faster" in found.sentence()


def test_running_out_of_memory_ends_the_search_with_the_last_that_fits() -> None:
    machine = Machine(fixed=100.0, each=0.1, room=5)
    found = find_batch_size(machine.run, "cpu", free=lambda: None, clock=machine.clock)
    assert found.size == 4 and machine.tried == [1, 2, 4, 8] and found.stopped == "memory runs out at 8"
    with pytest.raises(torch.OutOfMemoryError):
        find_batch_size(Machine(1, 1, room=0).run, "cpu", free=lambda: None)
    with pytest.raises(ZeroDivisionError):
        find_batch_size(lambda size: print(1 // (size - 2)), "cpu", free=lambda: None)


def test_memory_that_would_not_suffice_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    now, held, looks = [0.0], [0], [0]

    def memory() -> int:
        looks[0] += 1
        return 1_000_000_000 + held[0]

    def run(size: int) -> None:
        tried.append(size)
        now[0] += 1.0
        held[0], seen = size * 30_000_000, looks[0]  # 30 MB an image
        deadline = time.monotonic() + 30
        while looks[0] < seen + 2 and time.monotonic() < deadline:
            time.sleep(0.002)
        held[0] = 0

    monkeypatch.setattr(fitting, "current_memory", memory)
    found = find_batch_size(run, "cpu", free=lambda: 200_000_000, clock=lambda: now[0])
    # 2 and 4 take 60 and 120 MB; 8 would take 240 MB, more than the share of the free 200 that may be used.
    assert found.size == 4 and tried == [1, 2, 4] and "8 would need more memory" in found.stopped


def test_memory_is_measured() -> None:
    before = current_memory()
    # Fresh pages: an array might get some that this process has had and given back.
    with mmap.mmap(-1, 200_000_000) as fresh, watch_memory() as peak:
        block = np.frombuffer(fresh, np.uint8)
        block[:] = 1
        time.sleep(0.05)
        assert block[-1] == 1
        del block
    assert peak[0] - before > 100_000_000


def test_out_of_memory_while_translating_is_one_sentence() -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("can't allocate memory: you tried"),
        MemoryError(),
    ):
        with (
            pytest.raises(IsthmusError, match=r"Memory ran out with 8 image.*: set a lower batch_size"),
            explain_running(8),
        ):
            raise error
    with (
        pytest.raises(IsthmusError, match=r"Some failed \(RuntimeError: shapes differ\): check"),
        explain_running(8, "Some"),
    ):
        raise RuntimeError("shapes differ\nand more")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddim", "DDIMScheduler"),
        ("LMS", "LMSDiscreteScheduler"),
        ("euler", "EulerDiscreteScheduler"),
        ("euler-ancestral", "EulerAncestralDiscreteScheduler"),
        ("Euler a", "EulerAncestralDiscreteScheduler"),
        ("dpm++", "DPMSolverMultistepScheduler"),
        ("unipc", "UniPCMultistepScheduler"),
        ("lcm", "LCMScheduler"),
        ("HeunDiscreteScheduler", "HeunDiscreteScheduler"),
        (None, "PNDMScheduler"),
    ],
)
def test_schedulers_by_name_keep_the_models_noise(name: str | None, kind: str) -> None:
    own = scheduler()
    made = make_scheduler(own, name)
    assert type(made).__name__ == kind
    assert made.config.beta_start == own.config.beta_start and made.config.beta_schedule == "scaled_linear"


def test_an_unknown_scheduler_is_answered_with_the_list() -> None:
    with pytest.raises(IsthmusError, match=r"no scheduler 'eulr'.*ddim.*euler-ancestral.*unipc"):
        make_scheduler(scheduler(), "eulr")
    for name in known_schedulers(scheduler()):
        assert type(make_scheduler(scheduler(), short_name(name))).__name__ == name


def test_noise_belongs_to_the_image() -> None:
    noise = initial_noise([5, 6, 7], (4, 8, 8))
    for row, seed in enumerate((5, 6, 7)):
        plain = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(noise[row : row + 1], plain)
    assert [generator.initial_seed() for generator in generators([2**62 + 1, 3])] == [2**62 + 1, 3]
    assert initial_noise([1], (4, 2, 2), dtype=torch.float16).dtype == torch.float16


def test_squares_and_back() -> None:
    wide = Image.new("RGB", (90, 30), "red")
    for fit, back in (("stretch", (64, 64)), ("crop", (64, 64)), ("pad", (64, 21))):
        square = Square(64, fit, 64)  # type: ignore[arg-type]
        assert square.image(wide).size == (64, 64)
        assert square.back(square.image(wide), wide.size).size == back
        # Nothing but red comes back: the padding is cut off again.
        assert np.asarray(square.back(square.image(wide), wide.size)).min(axis=(0, 1)).tolist() == [255, 0, 0]
    assert Square(64, "pad", 32).back(Image.new("RGB", (64, 64)), (30, 90)).size == (11, 32)
    assert Square(64, "stretch", 48).back(Image.new("RGB", (128, 128)), (9, 9)).size == (48, 48)
    many = pictures(5)
    assert [a.tobytes() for a in Square(32, "crop", 32).images(many)] == [
        Square(32, "crop", 32).image(image).tobytes() for image in many
    ]


def test_pixels_are_rounded_as_diffusers_does() -> None:
    from diffusers.image_processor import VaeImageProcessor

    pixels = np.random.default_rng(0).random((9, 7, 3), dtype=np.float32)
    made = to_picture(pixels)
    assert made is not None and made.tobytes() == VaeImageProcessor.numpy_to_pil(pixels[None])[0].tobytes()
    pixels[3, 3, 0] = np.inf
    assert to_picture(pixels) is None
