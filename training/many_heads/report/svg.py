"""Figures of matplotlib as SVG that lies within a page, and is drawn in the page's own colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's text colour until the figure is in it: text and axes are dark on light
pages, and light on dark ones."""
FAINT = "#010204"
"""Likewise, for grids."""

HEAD, LINEAR, OTHER = "#3b82f6", "#f97316", "#8b949e"
"""Colours that are seen on white and on black."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: to be found, copied and read aloud
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # labels have dollars
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "legend.labelcolor": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}

LEAST_SHARE = 0.75
"""Of a figure's width, to which a narrow page may shrink it; beyond that it is scrolled."""

Draw = Callable[[Any], None]
"""Draws on axes of matplotlib."""


def figure(name: str, caption: str, draw: Draw, width: float = 4.2, height: float = 3.1) -> str:
    """A figure as HTML.

    Args:
        name: different for each figure of a page: parts of it are called by that.
        caption: HTML.
        width, height: in inches, of 96 CSS pixels on a wide page.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # Text is set in the reader's fonts: matplotlib's own only measures it.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        drawn = Figure(figsize=(width, height), layout="constrained")
        draw(drawn.add_subplot())
        file = io.StringIO()
        no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(drawn)
        drawn.savefig(file, format="svg", metadata=no_metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = svg.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
    sizes = f"max-width:{width}in;min-width:{LEAST_SHARE * width}in"
    svg = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", rf'\1 style="{sizes}"', svg, count=1)
    svg = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-caption" ', 1)
    below = f'<figcaption id="{name}-caption">{caption}</figcaption>'
    return f'<figure><div class="wide">{svg}</div>{below}</figure>'
