"""Loading a pipeline of diffusers: class, device, precision, scheduler, memory savers; one copy in memory."""

from __future__ import annotations

import contextlib
import inspect
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.io import fingerprint
from isthmus.translate.diffusion.explain import explain_loading, need_diffusers
from isthmus.translate.diffusion.schedulers import make_scheduler
from isthmus.translate.diffusion.settings import DiffusionSettings
from isthmus.translate.diffusion.weights import model_index, parts_of

# What `resolve` has loaded for trying batch sizes is what the run goes on with: held here until a translator takes it.
_alive: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_waiting: dict[str, Any] = {}
_lock = threading.Lock()


def pick_dtype(dtype: str, device: str, model: Path | None = None) -> str:
    """`dtype`, "auto" settled: half precision on CUDA (bfloat16 for models newer than Stable Diffusion's UNets).

    Example:
        >>> pick_dtype("auto", "cpu")
        'float32'
    """
    if dtype != "auto":
        return dtype
    if device != "cuda":
        return "float32"
    return "float16" if model is None or "unet" in parts_of(model) else "bfloat16"


def load_pipeline(settings: DiffusionSettings, kind: str, folder: Path) -> Any:
    """A pipeline ready to be called, with its own progress bars off.

    Args:
        settings: with device and dtype settled.
        kind: class of diffusers, such as "StableDiffusionPipeline" or "AutoPipelineForImage2Image".
        folder: the model's files (see `weights.locate_model`).

    Raises:
        IsthmusError: unknown class, a model that doesn't fit it, broken files, or too little memory.
    """
    need_diffusers()
    import diffusers
    import torch

    pipeline_type = pipeline_class(kind)
    more: dict[str, Any] = {}
    if not settings.safety_checker and "safety_checker" in model_index(folder):
        more |= {"safety_checker": None, "requires_safety_checker": False}
    if settings.variant is not None:
        more["variant"] = settings.variant
    with explain_loading(f"the model folder {folder} as {kind}"), quiet():
        pipeline = pipeline_type.from_pretrained(
            folder, torch_dtype=getattr(torch, settings.dtype), local_files_only=True, **more
        )
    if not isinstance(pipeline, diffusers.DiffusionPipeline):
        raise IsthmusError(f"pipeline={kind} is no pipeline of diffusers that makes pictures.")
    pipeline.set_progress_bar_config(disable=True)
    if settings.scheduler is not None:
        pipeline.scheduler = make_scheduler(pipeline.scheduler, settings.scheduler)
    return pipeline


def save_memory(pipeline: Any, settings: DiffusionSettings) -> None:
    """Place the pipeline on its device, with slicing, offload and compilation as the settings ask.

    To be called last: what replaces attention processors (IP-Adapter, ELITE) comes before.
    """
    if settings.attention_slicing:
        pipeline.enable_attention_slicing()
    coder: Any = getattr(pipeline, "vae", None)
    if settings.vae_slicing and hasattr(coder, "enable_slicing"):
        coder.enable_slicing()
    with explain_loading(f"model {settings.model!r} on {settings.device}"):
        if settings.cpu_offload:
            pipeline.enable_model_cpu_offload(device=settings.device)
        else:
            pipeline.to(settings.device)
    if settings.torch_compile:
        for part in ("unet", "transformer"):
            if getattr(pipeline, part, None) is not None:
                getattr(pipeline, part).compile()


def pipeline_class(name: str) -> Any:
    """A pipeline class of diffusers by name; an unknown one is an `IsthmusError` with names that come close."""
    import difflib

    import diffusers

    found = getattr(diffusers, name, None) if name.isidentifier() else None
    if inspect.isclass(found) and hasattr(found, "from_pretrained") and "Pipeline" in name:
        return found
    names = [item for item in dir(diffusers) if item.endswith("Pipeline")]
    close = difflib.get_close_matches(name, names, 5, 0.4)
    raise IsthmusError(f"diffusers has no pipeline {name!r}; names that come close: {', '.join(close) or 'none'}.")


def call_arguments(pipeline: Any) -> Mapping[str, inspect.Parameter]:
    """The named arguments that the call of a pipeline, or of a pipeline class, takes."""
    call = pipeline.__call__ if inspect.isclass(pipeline) else type(pipeline).__call__
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(call).parameters
    return {name: value for name, value in found.items() if value.kind in kinds and name != "self"}


def loading_key(name: str, settings: DiffusionSettings) -> str:
    """What two translators have in common when they may share a loaded pipeline: everything but the batch size."""
    return fingerprint([name, settings.model_dump(mode="json", exclude={"batch_size"})])


def keep(key: str, pipeline: Any, *, hold: bool = True) -> None:
    """Let `take` find a loaded pipeline as long as it lives; with `hold` it lives until then, in any other's place."""
    with _lock:
        _alive[key] = pipeline
        if hold:
            _waiting.clear()
            _waiting[key] = pipeline


def take(key: str) -> Any:
    """The pipeline held under `key`, or still at work elsewhere in this process; None where there is none.

    Whoever takes it owns it: when the last owner is gone, its memory is free.
    """
    with _lock:
        found = _waiting.pop(key, None)
        return _alive.get(key) if found is None else found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and advice of diffusers and transformers off the screen while a model is loaded."""
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log

    logs = (diffusers_log, transformers_log)
    bars = [log.is_progress_bar_enabled() for log in logs]
    levels = [log.get_verbosity() for log in logs]
    for log in logs:
        log.disable_progress_bar()
        log.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # `torch_dtype` is the name that every version up to 1.0 takes; newer ones grumble.
            warnings.filterwarnings("ignore", message=".*torch_dtype.*", category=FutureWarning)
            yield
    finally:
        for log, bar, level in zip(logs, bars, levels, strict=True):
            log.set_verbosity(level)
            if bar:
                log.enable_progress_bar()
