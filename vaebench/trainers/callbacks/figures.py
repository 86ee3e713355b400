"""Figures of a training as pictures: loss curves, and the latent space in two dimensions."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

MOST_CLASSES = 20  # in a legend; more labels get a colour bar
MOST_PANELS = 6


def loss_curves(rows: Sequence[Mapping[str, Any]]) -> Image.Image | None:
    """Draw every value that was logged for training and validation against the epoch, totals first.

    Args:
        rows: Those of metrics.jsonl.

    Returns:
        The picture; None where nothing finite was logged.
    """
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row.get("split") not in ("train", "validation"):
            continue
        for name, value in row.items():
            if name not in ("step", "epoch", "split") and isinstance(value, (int, float)) and math.isfinite(value):
                lines.setdefault(name, {}).setdefault(row["split"], []).append((row["epoch"], float(value)))
    names = sorted(lines, key=lambda name: not (name == "loss" or name.endswith("_loss")))[:MOST_PANELS]
    if not names:
        return None
    figure = _figure(min(3, len(names)) * 3.2, math.ceil(len(names) / 3) * 2.4)
    panels = figure.subplots(math.ceil(len(names) / 3), min(3, len(names)), squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        for split, points in lines[name].items():
            epochs, values = zip(*points, strict=True)
            panel.plot(
                epochs, values, label=split, linewidth=1.3, marker="o" if len(points) < 3 else None, markersize=3
            )
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("epoch", fontsize=8)
        panel.xaxis.get_major_locator().set_params(integer=True)
        later = [value for points in lines[name].values() for _, value in points[len(points) // 10 :]]
        if max(later) > min(later):  # the first losses would flatten the rest of the curve
            margin = 0.05 * (max(later) - min(later))
            panel.set_ylim(min(later) - margin, max(later) + margin)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize=8)
    return _picture(figure)


def latent_space(z: Tensor, y: Tensor | None = None) -> Image.Image:
    """Draw posterior means in two dimensions, coloured by label: as they are, or along their principal axes.

    Args:
        z: Shape (N, D).
        y: Labels, shape (N,), or None.
    """
    points, names = plane(z)
    figure = _figure(5.2, 4.4)
    axes = figure.subplots()
    labels = None if y is None or y.ndim != 1 else y
    classes = [] if labels is None else labels.unique().tolist()
    if labels is not None and len(classes) <= MOST_CLASSES:
        for number, label in enumerate(classes):
            chosen = points[labels == label]
            color = f"C{number}" if len(classes) <= 10 else _color(number, len(classes))
            axes.scatter(chosen[:, 0], chosen[:, 1], s=7, color=color, linewidths=0, label=str(int(label)))
        axes.legend(
            fontsize=7, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5), title="label", title_fontsize=8
        )
    else:
        colors = {} if labels is None else {"c": labels, "cmap": "viridis"}
        drawn = axes.scatter(points[:, 0], points[:, 1], s=7, linewidths=0, **colors)
        if labels is not None:
            figure.colorbar(drawn, label="label")
    axes.set_xlabel(names[0], fontsize=8)
    axes.set_ylabel(names[1], fontsize=8)
    return _picture(figure)


def density(energy: Callable[[Tensor], Tensor], data: Tensor, draws: Tensor, resolution: int = 120) -> Image.Image:
    """Draw the density exp(-E) over the plane, normalised over the picture, with draws on it; beside it the data.

    Args:
        energy: E, from points (N, 2) to nats (N,).
        data: Shape (N, 2).
        draws: Shape (M, 2).
        resolution: Points of the grid along each axis.
    """
    low, high = data.amin(0), data.amax(0)
    margin = 0.15 * (high - low).clamp_min(1e-6)
    ends = torch.stack([low - margin, high + margin], 1).tolist()
    x, y = (torch.linspace(first, last, resolution) for first, last in ends)
    minus = -energy(torch.cartesian_prod(x, y)).double().cpu().view(resolution, resolution)
    mass = torch.exp(minus - minus.logsumexp((0, 1))) / float((x[1] - x[0]) * (y[1] - y[0]))
    figure = _figure(8.4, 3.9)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    drawn = left.contourf(x, y, mass.T, levels=24, cmap="Blues")
    figure.colorbar(drawn, ax=left, label="learned density")
    left.scatter(draws[:, 0], draws[:, 1], s=3, color="tab:red", linewidths=0, alpha=0.6)
    left.set_title("density, and draws of chains", fontsize=9)
    right.scatter(data[:, 0], data[:, 1], s=3, color="black", linewidths=0, alpha=0.6)
    right.set_title("data", fontsize=9)
    left.set_xlim(float(x[0]), float(x[-1]))
    left.set_ylim(float(y[0]), float(y[-1]))
    return _picture(figure)


def plane(z: Tensor) -> tuple[Tensor, tuple[str, str]]:
    """Return points in two dimensions, shape (N, 2), float64, and the names of these: coordinates or principal axes.

    Args:
        z: Shape (N, D).
    """
    z = z.detach().double().cpu().flatten(1)
    if z.shape[1] == 1:
        return torch.cat([z, torch.zeros_like(z)], 1), ("z 0", "")
    if z.shape[1] == 2:
        return z, ("z 0", "z 1")
    centred = z - z.mean(0)
    if z.shape[1] > len(z):  # the smaller product has the same eigenvalues
        variances, points = torch.linalg.eigh(centred @ centred.mT)
        directions = centred.mT @ points[:, -2:] / variances[-2:].clamp_min(1e-300).sqrt()
    else:
        variances, directions = torch.linalg.eigh(centred.mT @ centred)
    variances, directions = variances.flip(0), directions.flip(1)
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    shares = (variances / variances.sum().clamp_min(1e-300)).tolist()
    axes = [f"principal axis {k + 1} ({100 * shares[k]:.0f} % of the variance)" for k in range(2)]
    return centred @ directions[:, :2], (axes[0], axes[1])


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _color(number: int, total: int) -> Any:
    from matplotlib import colormaps

    return colormaps["turbo"](number / max(1, total - 1))


def _picture(figure: Any) -> Image.Image:
    for axes in figure.axes:
        axes.tick_params(labelsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    content.seek(0)
    with Image.open(content, formats=["PNG"]) as image:
        return image.convert("RGB")
