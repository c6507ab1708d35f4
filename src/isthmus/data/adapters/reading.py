"""Files of a published layout: there and readable, or one sentence that says where to get them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.data.adapters.base import Adapter, missing
from isthmus.data.adapters.choosing import by_number
from isthmus.data.files import list_images, show_name
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    import numpy as np


def need_folder(folder: Path, adapter: Adapter) -> Path:
    """`folder`, or one sentence that names it and where the data set is to be had."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "is not there"
        raise missing(f"The folder {show_name(folder)} {what}", adapter)
    return folder


def need_file(path: Path, adapter: Adapter) -> Path:
    """`path`, or one sentence that names it and where the data set is to be had."""
    if not path.is_file():
        raise missing(f"There is no file {show_name(path)}", adapter)
    return path


def images_in(folder: Path, adapter: Adapter, *, deep: bool = False) -> list[Path]:
    """The images of a folder (with `deep`, also of its subfolders), `2.jpg` before `10.jpg`; at least one."""
    found = list_images(need_folder(folder, adapter))
    if not deep:
        found = [path for path in found if path.parent == folder]
    if not found:
        raise missing(f"The folder {show_name(folder)} holds no image", adapter)
    return sorted(found, key=lambda path: by_number(path.relative_to(folder).as_posix()))


def read_lines(path: Path, adapter: Adapter) -> list[str]:
    """The lines of a text file that are not empty, without the space around them."""
    try:
        text = need_file(path, adapter).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise IsthmusError(
            f"{show_name(path)} can't be read as text ({error}); extract it anew from {adapter.page}."
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_mat(path: Path, names: Sequence[str], adapter: Adapter) -> np.ndarray[Any, Any]:
    """The first of the variables `names` that a MATLAB file holds.

    Raises:
        IsthmusError: no such file, no MATLAB file that can be read, or none of the variables in it.
    """
    from scipy.io import loadmat

    need_file(path, adapter)
    try:
        content = loadmat(str(path))
    except NotImplementedError:
        raise IsthmusError(
            f"{show_name(path)} is a MATLAB 7.3 file, which can't be read here; save it with -v7 in MATLAB, or "
            f"extract it anew from {adapter.page}."
        ) from None
    except Exception as error:  # scipy raises what its parser stumbles on: ValueError, TypeError, zlib.error, OSError
        raise IsthmusError(
            f"{show_name(path)} can't be read as a MATLAB file ({error}); extract it anew from {adapter.page}."
        ) from error
    for name in names:
        if name in content:
            found: np.ndarray[Any, Any] = content[name]
            return found
    has = ", ".join(sorted(name for name in content if not name.startswith("__"))) or "nothing"
    raise IsthmusError(
        f"{show_name(path)} holds no variable '{names[0]}' (it has: {has}); extract it anew from {adapter.page}."
    )
