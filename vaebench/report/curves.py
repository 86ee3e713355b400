"""Learning curves as SVG that lives inside a page: no text from outside, colours that follow the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

NUM_COLORS = 8  # those of the page's palette; further curves are grey
_PLACEHOLDER = "#0a0b{:02x}"  # stands for the page's color number n until the SVG is written
_INK = "#0a0bff"


def learning_curves(
    curves: Sequence[Sequence[Sequence[tuple[float, float]]]], ylabel: str, width: float = 7.2, height: float = 3.1
) -> str:
    """Draw one color per configuration and one line per seed.

    The first tenth of the epochs does not stretch the vertical axis: the losses of an untrained model would flatten
    everything that follows.

    Args:
        curves: For each configuration, for each of its runs, points (epoch, loss).
        ylabel: Name of the vertical axis.
        width: Inches.
        height: Inches.

    Returns:
        An `<svg>` element whose strokes are `var(--series-<n>)` and whose ink is `currentColor`; "" without points.
    """
    if not any(line for lines in curves for line in lines):
        return ""
    import matplotlib

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{ylabel}{curves!r}",
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
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        for number in reversed(range(len(curves))):  # the best on top
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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.grid(axis="y", alpha=0.12, linewidth=0.8)
        axes.tick_params(length=0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


def _limits(lines: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    values = [y for line in lines for _, y in line]
    settled = [y for line in lines for _, y in line[len(line) // 10 :]]
    low, high = min(values), max(settled)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _inline(svg: str) -> str:
    """Keep the element itself, sized by the page, with the page's colors."""
    svg = svg[svg.index("<svg") :]
    # Its style element and its numbered names would reach over the whole page; only clip paths are referred to.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', svg, count=1)
    svg = re.sub(r"font-family: [^;]*; ?", "", svg)
    for number in range(NUM_COLORS + 1):
        svg = svg.replace(_PLACEHOLDER.format(number), f"var(--series-{number})")
    return svg.replace(_INK, "currentColor")
