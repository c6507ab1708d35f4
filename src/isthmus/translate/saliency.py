"""Which part of a photo is the object: a background prior from the image's border, without weights.

Robust background detection (Zhu et al., "Saliency Optimization from Robust Background Detection", CVPR 2014) on a
coarse grid of cells: a region is background when it is strongly connected to the border for its size, so that an object
that merely touches the border (most portraits) stays an object.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, sparse
from scipy.sparse import csgraph

Floats = NDArray[np.float32]
GRID = 14  # cells along the longer side; all-pairs geodesics cost GRID ** 4
COLOUR_SIGMA = 10.0  # Lab units; the paper's value


def lab(rgb: NDArray[np.uint8]) -> Floats:
    """sRGB (h, w, 3) uint8 to CIE Lab (h, w, 3) float32, D65; L in 0..100."""
    linear = _linear_table()[rgb]
    matrix = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=np.float32
    ) / np.array([[0.9505], [1.0], [1.089]], dtype=np.float32)
    xyz = linear @ matrix.T
    # The curve through a table: a cube root of every pixel would be the slowest step of the whole drawing.
    f: Floats = _cube_table()[np.clip(xyz * 4095, 0, 4095).astype(np.int32)]
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


@functools.cache
def _linear_table() -> Floats:
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@functools.cache
def _cube_table() -> Floats:
    value = (np.arange(4096) + 0.5) / 4096
    return np.where(value > 0.008856, np.cbrt(value), 7.787 * value + 16 / 116).astype(np.float32)


def gaussian(image: Floats, sigma: float) -> Floats:
    """`image` (h, w) blurred; borders are repeated."""
    out = np.empty_like(image)
    ndimage.gaussian_filter(image, sigma, output=out, mode="nearest", truncate=3.0)
    return out


def guided_filter(guide: Floats, image: Floats, radius: int, eps: float) -> Floats:
    """Edge-preserving smoothing of `image` along `guide`, both (h, w) (He et al., "Guided Image Filtering", 2013)."""

    def mean(x: Floats) -> Floats:
        out = np.empty_like(x)
        ndimage.uniform_filter(x, 2 * radius + 1, output=out, mode="nearest")
        return out

    guide_mean, image_mean = mean(guide), mean(image)
    a = (mean(guide * image) - guide_mean * image_mean) / (mean(guide * guide) - guide_mean**2 + eps)
    b = image_mean - a * guide_mean
    return mean(a) * guide + mean(b)


def saliency(pixels: Floats) -> Floats:
    """Object-ness of each pixel of a Lab image (h, w, 3): float32 (h, w) in 0..1.

    A plain image (no cell differs from another) gives zeros.
    """
    height, width = pixels.shape[:2]
    scale = GRID / max(height, width)
    rows, columns = max(4, round(height * scale)), max(4, round(width * scale))
    planes = (Image.fromarray(np.ascontiguousarray(pixels[..., channel])) for channel in range(3))
    means = [np.asarray(plane.resize((columns, rows), Image.Resampling.BOX)) for plane in planes]
    cells = np.stack(means, axis=-1).reshape(-1, 3)
    if float(np.ptp(cells, axis=0).max()) < 1.0:
        return np.zeros((height, width), dtype=np.float32)
    coarse = _solve(cells.astype(np.float64), rows, columns).reshape(rows, columns).astype(np.float32)
    fine: Floats = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    # The cells are coarse; lightness carries their borders to the object's own.
    light: Floats = pixels[..., 0] / np.float32(100)
    fine = guided_filter(light, fine, radius=max(2, max(height, width) // GRID), eps=1e-3)
    return np.clip(fine, 0, 1).astype(np.float32)


def _solve(cells: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    first, second, spatial, border, centre = _layout(rows, columns)
    count = rows * columns
    step = np.sqrt(((cells[first] - cells[second]) ** 2).sum(1))
    # Small steps are noise of one surface: without this floor every long way looks far (section 4.1 of the paper).
    floor = max(3.0, float(np.quantile(step, 0.25)))
    cost = np.maximum(step - floor, 0) + 1e-6
    ring = np.flatnonzero(border)
    graph = sparse.coo_matrix(
        (
            np.concatenate([cost, np.full(len(ring), 1e-6)]),
            (np.concatenate([first, ring]), np.concatenate([second, np.roll(ring, 1)])),
        ),
        shape=(count, count),
    ).tocsr()
    geodesic = csgraph.dijkstra(graph, directed=False)
    near = np.exp(-(geodesic**2) / (2 * COLOUR_SIGMA**2))
    connectivity = near[:, border].sum(1) / np.sqrt(near.sum(1))
    background = 1 - np.exp(-(connectivity**2) / 2)
    colour = np.sqrt(np.maximum(((cells[:, None] - cells[None]) ** 2).sum(-1), 0))
    contrast = (colour * spatial * background[None]).sum(1)
    foreground = contrast / max(float(contrast.max()), 1e-9) * centre
    weight = np.exp(-(step**2) / (2 * COLOUR_SIGMA**2)) + 0.1
    links = sparse.coo_matrix((weight, (first, second)), shape=(count, count)).tocsr()
    links = links + links.T
    diagonal = np.asarray(links.sum(1)).ravel() + background + foreground + 1e-3
    solved = _conjugate_gradient(links, diagonal, foreground)
    low, high = np.quantile(solved, [0.05, 0.98])
    return np.asarray(np.clip((solved - low) / max(high - low, 1e-6), 0, 1))


def _conjugate_gradient(
    links: sparse.csr_matrix, diagonal: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve (diag(diagonal) - links) x = wanted; symmetric, positive definite.

    By hand, because a threaded LAPACK gives other last bits with another number of threads, and the same image has to
    give the same drawing on every run.
    """
    x = wanted / diagonal
    residual = wanted - (diagonal * x - links @ x)
    scaled = residual / diagonal
    direction = scaled.copy()
    rho = float((residual * scaled).sum())
    for _ in range(100):
        if rho < 1e-12:
            break
        step = diagonal * direction - links @ direction
        alpha = rho / float((direction * step).sum())
        x = x + alpha * direction
        residual = residual - alpha * step
        scaled = residual / diagonal
        rho, before = float((residual * scaled).sum()), rho
        direction = scaled + rho / before * direction
    return np.asarray(x)


@functools.lru_cache(maxsize=64)
def _layout(
    rows: int, columns: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Neighbour pairs, spatial weights, the border cells and the centre prior of a grid."""
    index = np.arange(rows * columns).reshape(rows, columns)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:]), (index[:-1, :-1], index[1:, 1:])]
    pairs.append((index[:-1, 1:], index[1:, :-1]))
    first = np.concatenate([a.ravel() for a, _ in pairs])
    second = np.concatenate([b.ravel() for _, b in pairs])
    y, x = np.divmod(np.arange(rows * columns), columns)
    place = np.stack([(y + 0.5) / rows, (x + 0.5) / columns], axis=1)
    spatial = np.exp(-((place[:, None] - place[None]) ** 2).sum(-1) / (2 * 0.25**2))
    border = (y == 0) | (y == rows - 1) | (x == 0) | (x == columns - 1)
    centre = np.exp(-((place - 0.5) ** 2).sum(1) / (2 * 0.33**2))
    return first, second, spatial, border, centre
