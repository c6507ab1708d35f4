"""Errors of torch, diffusers and the hub as one sentence that says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from isthmus.errors import IsthmusError, need_extra

_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Invalid buffer size")


def need_diffusers() -> None:
    """Raise `MissingExtraError` where the packages of the extra `diffusion` are missing; call before importing them."""
    import importlib.util

    for package in ("diffusers", "transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise need_extra("diffusion", package)
    from isthmus.runtime import prepare_torchvision

    prepare_torchvision()


def out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what an `IsthmusError` was made from, says that memory has run out, on whatever device.

    Example:
        >>> out_of_memory(RuntimeError("MPS backend out of memory")), out_of_memory(ValueError("no"))
        (True, False)
    """
    if isinstance(error, IsthmusError) and error.__cause__ is not None:
        return out_of_memory(error.__cause__)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY)


@contextlib.contextmanager
def explain_loading(what: str) -> Iterator[None]:
    """Turn whatever goes wrong while `what` (such as "the model folder x") is loaded into an `IsthmusError`."""
    try:
        yield
    except IsthmusError:
        raise
    except Exception as error:
        raise IsthmusError(_loading(what, error)) from error


def _loading(what: str, error: Exception) -> str:
    kind, text = type(error).__name__, first_line(error)
    if out_of_memory(error):
        return (
            f"There is not enough memory to load {what}: "
            "choose dtype=float16 or bfloat16, cpu_offload=true or a smaller model."
        )
    if kind == "GatedRepoError":
        return (
            f"The hub gives {what} only to people who have accepted its terms: "
            "do so on its page, and log in with  hf auth login"
        )
    if kind in ("RepositoryNotFoundError", "HFValidationError"):
        return f"There is no {what}, neither as a folder here nor on the hub: check the spelling of the setting."
    if kind == "RevisionNotFoundError":
        return f"The hub has {what}, but not that revision: check the setting revision."
    if kind in ("LocalEntryNotFoundError", "OfflineModeIsEnabled") or "offline" in text.lower() or _unreachable(error):
        return (
            f"The hub can't be reached for {what}, and its files are not on this machine: "
            "download them where there is a network and give the folder instead."
        )
    if kind == "EntryNotFoundError" or kind == "RemoteEntryNotFoundError":
        return f"The hub has {what}, but not the files of a diffusers pipeline in it: {text}"
    return f"Could not load {what}: {text}"


def _unreachable(error: BaseException | None) -> bool:
    """Whether a connection error lies somewhere in the chain of causes."""
    for _ in range(10):
        if error is None:
            return False
        if isinstance(error, ConnectionError | TimeoutError) or "Connect" in type(error).__name__:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def explain_running(batch_size: int, what: str = "the pipeline") -> Iterator[None]:
    """Turn a failure of the call of the pipeline `what` into an `IsthmusError`; interruptions pass."""
    try:
        yield
    except IsthmusError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise IsthmusError(
                f"Memory ran out with {batch_size} image(s) at a time: set a lower batch_size or size, or "
                "attention_slicing, vae_slicing or cpu_offload to true, with another --out; or free memory and run the "
                "same command again."
            ) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise IsthmusError(f"torch.compile failed ({first_line(error)}): set torch_compile=false.") from error
        raise IsthmusError(
            f"{what} failed ({type(error).__name__}: {first_line(error)}): check size, scheduler and arguments, "
            "and that the model fits the pipeline."
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of a message that says something, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
