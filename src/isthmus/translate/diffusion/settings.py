"""The settings that all translators on diffusion models share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from isthmus.translate.base import TranslatorSettings
from isthmus.translate.diffusion.prompts import PromptTable

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Fit = Literal["stretch", "pad", "crop"]
SNAP = 8  # pixels that one latent stands for


class DiffusionSettings(TranslatorSettings):
    """Common settings; what is left open (None, "auto") is settled by `resolve` and recorded.

    Attributes:
        model: a folder in diffusers' layout (it holds `model_index.json`), or a hub id.
        revision: branch, tag or commit of a hub id.
        variant: of the weight files, such as "fp16".
        local_files_only: don't ask the hub.
        pipeline: class name of a diffusers pipeline, where the model's own description shall not decide.
        prompt: what to make; `{label}` is the image's category; None: the paper's prompt for the target domain.
        prompts: which wording of the paper's prompts.
        negative_prompt: what not to make.
        steps: denoising steps of the whole way from noise to picture.
        guidance: weight of the text (classifier-free guidance); 0 or 1 is without, as distilled models need it.
        scheduler: class of diffusers or short name, such as ddim, lms, euler; None: the model's own.
        arguments: further arguments of the pipeline's call, such as {true_cfg_scale: 4}.
        size: pixels of the square that the model works on, a multiple of 8.
        fit: `stretch` the image to the square (as the paper does), `pad` it (and cut the padding off again), `crop` it.
        output_size: longer side of the pictures made; None: `size`.
        batch_size: images at a time; "auto" is found by trying, recorded, and kept on resume.
        device, dtype: "auto" takes an accelerator where there is one, with half precision on CUDA.
        attention_slicing, vae_slicing, cpu_offload: less memory for less speed.
        torch_compile: compile the denoising network: a slow start, faster pictures.
        safety_checker: use the model's own checker where it has one; a flagged picture is tried again, then left out.
        weights: a hash of the model's files, found by `resolve`: other weights are refused when a run is resumed.
    """

    model: str
    revision: str | None = None
    variant: str | None = None
    local_files_only: bool = False
    pipeline: str | None = None
    prompt: str | None = None
    prompts: PromptTable = "paper"
    negative_prompt: str | None = None
    steps: int | None = Field(50, ge=1, le=1000)
    guidance: float | None = Field(7.5, ge=0, le=100)
    scheduler: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    size: int = Field(512, ge=SNAP, le=4096)
    fit: Fit = "stretch"
    output_size: int | None = Field(None, ge=16, le=4096)
    batch_size: int | Literal["auto"] = "auto"
    device: Device = "auto"
    dtype: Dtype = "auto"
    attention_slicing: bool = False
    vae_slicing: bool = False
    cpu_offload: bool = False
    torch_compile: bool = False
    safety_checker: bool = True
    weights: str | None = None

    @field_validator("size")
    @classmethod
    def _snap(cls, value: int) -> int:
        return (value + SNAP // 2) // SNAP * SNAP

    @field_validator("batch_size")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= 1024:
            raise ValueError("it is 1 to 1024, or auto")
        return value
