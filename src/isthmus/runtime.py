"""What has to happen before torchvision or timm is imported.

torchvision's default wheel is built for CUDA. Beside a CPU-only torch its compiled operators can't be loaded, and then
`import torchvision` itself fails with `operator torchvision::nms does not exist`, because one of its Python files
registers a fake kernel for an operator that was never defined. Isthmus needs none of those operators. Declaring the two
names, without an implementation, lets the import pass; calling `torchvision.ops.nms` still raises, as it should.

A torchvision whose operators load (a true CPU build, or CUDA with CUDA) is left alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_kept: list[Any] = []  # the definitions vanish with the Library object, so a reference has to live


def prepare_torchvision() -> bool:
    """Make `import torchvision` safe; returns whether stand-in operator names had to be declared.

    Example:
        >>> _ = prepare_torchvision()
        >>> import torchvision
    """
    if _kept:
        return True
    import torch

    if _has_operators() or _load_operators():
        return False
    make_library: Any = torch.library.Library
    library = make_library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return True


def _has_operators() -> bool:
    import torch

    return bool(torch._C._jit_get_schemas_for_operator("torchvision::nms"))


def _load_operators() -> bool:
    """Try torchvision's own shared library, as its `extension.py` will."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # nothing to mend: the import will say what is missing
    for file in sorted(Path(spec.origin).parent.glob("_C*")):
        if file.suffix not in (".so", ".pyd", ".dylib"):
            continue
        try:
            load: Any = torch.ops.load_library
            load(str(file))
        except OSError:
            continue
        if _has_operators():
            return True
    return False
