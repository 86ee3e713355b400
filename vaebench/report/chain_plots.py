"""Pictures of Markov chains on an energy: their paths over the landscape, and marginals beside exact draws."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

NUM_PATHS = 4  # chains that are drawn as lines
MAX_MARGINALS = 6  # dimensions
MAX_FRAMES, MAX_CHAINS = 100, 200  # in an animation


def landscape(
    trajectory: np.ndarray, energy: Callable[[np.ndarray], np.ndarray], title: str, resolution: int = 120
) -> bytes:
    """Draw all states over the first two dimensions, the paths of a few chains, and the energy as contours.

    Args:
        trajectory: Shape (S, T, D), D >= 2.
        energy: From points (N, D) to nats (N,); other dimensions are held at their medians.
        title: Stands above it.
        resolution: Points of the grid along each axis.

    Returns:
        A PNG file.
    """
    figure, axes = _landscape(trajectory, energy, title, resolution)
    flat = trajectory.reshape(-1, trajectory.shape[-1])
    axes.scatter(flat[-5000:, 0], flat[-5000:, 1], s=2, color="tab:blue", alpha=0.35, linewidths=0)
    for number, path in enumerate(trajectory[:NUM_PATHS, :200]):
        color = f"C{number + 1}"
        axes.plot(path[:, 0], path[:, 1], color=color, linewidth=0.8, alpha=0.9)
        axes.plot(*path[0, :2], marker="o", color=color, markersize=5, markeredgecolor="white")
    return _png(figure)


def animation(
    trajectory: np.ndarray, energy: Callable[[np.ndarray], np.ndarray], title: str, resolution: int = 120
) -> bytes:
    """Draw the chains moving over the landscape: up to 100 moments of the run, all chains as points, with short tails.

    Args: those of `landscape`.

    Returns:
        A GIF file that repeats.
    """
    import numpy as np
    from PIL import Image

    figure, axes = _landscape(trajectory, energy, title, resolution)
    (tails,) = axes.plot([], [], color="tab:orange", linewidth=0.8, alpha=0.6, animated=True)
    (points,) = axes.plot([], [], "o", color="tab:blue", markersize=4, markeredgecolor="white", animated=True)
    moment = axes.text(0.02, 0.97, "", transform=axes.transAxes, va="top", animated=True)
    canvas = figure.canvas
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    times = np.unique(np.linspace(0, trajectory.shape[1] - 1, MAX_FRAMES).round().astype(int))
    frames = []
    for t in times:
        canvas.restore_region(background)
        now, past = trajectory[:MAX_CHAINS, t, :2], trajectory[:NUM_PATHS, max(0, t - 10) : t + 1, :2]
        broken = np.concatenate([past, np.full((len(past), 1, 2), np.nan)], 1).reshape(-1, 2)  # nan: a gap
        points.set_data(*now.T)
        tails.set_data(*broken.T)
        moment.set_text(f"draw {t + 1} of {trajectory.shape[1]}")
        for artist in (tails, points, moment):
            axes.draw_artist(artist)
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64))
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=60, loop=0)
    return content.getvalue()


def _landscape(
    trajectory: np.ndarray, energy: Callable[[np.ndarray], np.ndarray], title: str, resolution: int
) -> tuple[Any, Any]:
    """A figure with the energy over the first two dimensions as contours."""
    import numpy as np

    flat = trajectory.reshape(-1, trajectory.shape[-1])
    low, high = np.quantile(flat[:, :2], [0.002, 0.998], axis=0)
    margin = 0.25 * np.maximum(high - low, 1e-6)
    axes_points = [np.linspace(low[d] - margin[d], high[d] + margin[d], resolution) for d in range(2)]
    first, second = np.meshgrid(*axes_points)
    points = np.tile(np.median(flat, axis=0), (resolution**2, 1))
    points[:, 0], points[:, 1] = first.ravel(), second.ravel()
    height = energy(points).reshape(resolution, resolution)
    height = height - height[np.isfinite(height)].min()

    figure, axes = _figure(6.4, 5.2)
    levels = np.concatenate([[0], np.geomspace(0.25, max(1.0, np.quantile(height[np.isfinite(height)], 0.9)), 14)])
    filled = axes.contourf(first, second, height, levels=levels, cmap="Greys", extend="max", alpha=0.8)
    figure.colorbar(filled, label="energy above its minimum, nats")
    axes.set(xlabel="x[0]", ylabel="x[1]", title=title)
    axes.set_xlim(axes_points[0][[0, -1]])
    axes.set_ylim(axes_points[1][[0, -1]])
    return figure, axes


def marginals(draws: np.ndarray, exact: np.ndarray | None, title: str) -> bytes:
    """Draw a histogram of each of the first dimensions, with exact draws as an outline where there are any.

    Args:
        draws: Shape (N, D).
        exact: Shape (M, D), or None.
        title: Stands above it.

    Returns:
        A PNG file.
    """
    import numpy as np

    count = min(draws.shape[1], MAX_MARGINALS)
    figure, axes = _figure(2.6 * min(count, 3), 2.4 * -(-count // 3), rows=-(-count // 3), columns=min(count, 3))
    for d, place in enumerate(np.ravel(axes)[:count]):
        everything = draws if exact is None else np.concatenate([draws, exact])
        least, most = (float(value) for value in np.quantile(everything[:, d], [0.001, 0.999]))
        bins = np.linspace(least, most, 60)
        width = max(bins[1] - bins[0], 1e-12)
        heights = np.full(len(draws), 1 / (len(draws) * width))  # normalised over the whole line, seen or not
        place.hist(draws[:, d], bins=bins, weights=heights, color="tab:blue", alpha=0.6, label="chains")
        if exact is not None:
            heights = np.full(len(exact), 1 / (len(exact) * width))
            place.hist(exact[:, d], bins=bins, weights=heights, histtype="step", color="black", label="exact draws")
        place.set_xlabel(f"x[{d}]")
        place.set_yticks([])
        if d == 0:
            place.legend(frameon=False, fontsize=7)
    for place in np.ravel(axes)[count:]:
        place.axis("off")
    figure.suptitle(title)
    return _png(figure)


def traces(trajectory: np.ndarray, autocorrelation: Sequence[Sequence[float]], title: str) -> bytes:
    """Draw the first dimension of a few chains over time, and the autocorrelation of each dimension.

    Args:
        trajectory: Shape (S, T, D).
        autocorrelation: For each dimension, its values at lags 0, 1, ….
        title: Stands above it.

    Returns:
        A PNG file.
    """
    figure, (left, right) = _figure(8.0, 2.8, columns=2)
    for path in trajectory[:NUM_PATHS]:
        left.plot(path[:, 0], linewidth=0.7)
    left.set(xlabel="draw", ylabel="x[0]")
    for d, values in enumerate(autocorrelation[:MAX_MARGINALS]):
        right.plot(values, label=f"x[{d}]", linewidth=1.2)
    right.axhline(0, color="black", linewidth=0.5)
    right.set(xlabel="lag, draws", ylabel="autocorrelation")
    right.legend(frameon=False, fontsize=7)
    figure.suptitle(title)
    return _png(figure)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
