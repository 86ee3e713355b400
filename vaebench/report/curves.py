"""Learning curves as SVG that lives inside a page: no text from outside, colours that follow the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

NUM_COLORS = 8  # the page's palette; further curves are grey
_PLACEHOLDER = "#0a0b{:02x}"  # replaced by the page's color n once the SVG is written
_INK = "#0a0bff"


Curves = Sequence[Sequence[Sequence[tuple[float, float]]]]  # configuration, run, point (epoch, loss)


def learning_curves(panels: Mapping[str, Curves], width: float = 9.6, height: float = 3.1) -> str:
    """Draw panels side by side, with one color per configuration and one line per seed.

    The first tenth of the epochs does not stretch the vertical axis: the losses of an untrained model would flatten
    everything that follows.

    Args:
        panels: The curves of each panel by the name of its vertical axis; a panel without points is left out.
        width: Inches.
        height: Inches.

    Returns:
        An `<svg>` element whose strokes are `var(--series-<n>)` and whose ink is `currentColor`; "" without points.
    """
    panels = {name: curves for name, curves in panels.items() if any(line for lines in curves for line in lines)}
    if not panels:
        return ""
    import matplotlib

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": repr(panels),
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        **{
            key: _INK
            for key in ("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "text.color", "grid.color")
        },
    }
    with matplotlib.rc_context(style):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, (name, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _draw(axes, curves, name)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


def _draw(axes: Any, curves: Curves, ylabel: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for number in reversed(range(len(curves))):  # so that the best is drawn on top
        color = _PLACEHOLDER.format(min(number, NUM_COLORS))
        for line in curves[number]:
            if line:
                x, y = zip(*line, strict=True)
                axes.plot(x, y, color=color, linewidth=1.6, marker="o" if len(line) < 3 else None, markersize=4)
    low, high = _limits([line for lines in curves for line in lines])
    axes.set_ylim(low, high)
    epochs = {x for lines in curves for line in lines for x, _ in line}
    if len(epochs) == 1:
        axes.set_xlim(min(epochs) - 1, max(epochs) + 1)
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.grid(axis="y", alpha=0.12, linewidth=0.8)
    axes.tick_params(length=0)


def _limits(lines: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    values = [y for line in lines for _, y in line]
    settled = [y for line in lines for _, y in line[len(line) // 10 :]]
    low, high = min(values), max(settled)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _inline(svg: str) -> str:
    """Keep the element itself, sized by the page, with the page's colors."""
    svg = svg[svg.index("<svg") :]
    # Its style element and ids would affect the whole page; only clip paths are needed.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', svg, count=1)
    svg = re.sub(r"font-family: [^;]*; ?", "", svg)
    for number in range(NUM_COLORS + 1):
        svg = svg.replace(_PLACEHOLDER.format(number), f"var(--series-{number})")
    return svg.replace(_INK, "currentColor")
