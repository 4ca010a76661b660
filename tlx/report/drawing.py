"""How figures look: colours for colour-blind readers, a marker each, and the baseline in ink."""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tlx.report import metrics
from tlx.report.folder import Results
from tlx.report.metrics import Metric

INK = '#1a1a1b'  # the page replaces it by the colour of its text
STYLE: dict[Any, Any] = {
  'font.size': 9,
  'axes.titlesize': 9,
  'axes.labelsize': 9,
  'legend.fontsize': 8.5,
  'xtick.labelsize': 8,
  'ytick.labelsize': 8,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'grid.alpha': 0.18,
  'grid.color': INK,
  'grid.linewidth': 0.6,
  'text.color': INK,
  'axes.labelcolor': INK,
  'axes.edgecolor': INK,
  'axes.titlecolor': INK,
  'xtick.color': INK,
  'ytick.color': INK,
  'axes.facecolor': 'none',
  'figure.facecolor': 'none',
  'legend.frameon': False,
  'lines.linewidth': 1.4,
  'lines.markersize': 4.5,
  'text.parse_math': False,  # names come from files
  'svg.fonttype': 'none',
  'svg.hashsalt': 'tlx',
}
# Okabe and Ito's (2008) palette without black, which is the baseline's, and with its yellow
# darkened to be seen on white.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#A58B00')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>')
LEGEND_ROW = 0.19  # inches


class Drawing(NamedTuple):
  """A figure as it goes to the page and to files."""

  name: str
  caption: str
  svg: str
  png: bytes


def save(drawings: Sequence[Drawing], folder) -> None:
  """Writes <name>.svg and <name>.png (200 dots an inch, white) into `folder`."""
  folder.mkdir(parents=True, exist_ok=True)
  for drawing in drawings:
    (folder / f'{drawing.name}.svg').write_text(drawing.svg, encoding='utf-8')
    (folder / f'{drawing.name}.png').write_bytes(drawing.png)


def lines(
  ax,
  part: pd.DataFrame,
  x: str,
  by: str,
  order: Iterable,
  style: Callable,
  label: Callable = str,
  dodge: float = 0.0,
  metric: Metric = metrics.ACCURACY,
) -> None:
  """A line with error bars for each value of `by`, moved apart on a log axis by `dodge` octaves;
  shares in %, bars within what the metric can be. However many values `by` has, they stay
  within an octave.
  """
  present = [value for value in order if value in set(part[by])]
  dodge = min(dodge, 0.8 / max(len(present), 1))
  for i, value in enumerate(present):
    line = part[part[by] == value].sort_values(x)
    places = line[x] * 2.0 ** (dodge * (i - (len(present) - 1) / 2))
    ax.errorbar(
      places,
      metric.scale * line['mean'],
      yerr=_bars(line, metric),
      label=label(value),
      capsize=2,
      elinewidth=1,
      **style(value),
    )


def _bars(line: pd.DataFrame, metric: Metric) -> np.ndarray:
  """[below, above] the mean as drawn, cut where the metric ends; 0 without an interval."""
  below = line['mean'] - line['low'].clip(lower=metric.low)
  above = line['high'].clip(upper=metric.high) - line['mean']
  return metric.scale * np.nan_to_num(np.stack([below, above])).clip(min=0.0)


def score_axis(ax, metric: Metric, share: float, always: bool = True) -> None:
  """Keeps an axis of scores within what the metric can be, markers whole at either end, with a
  dotted line at `share`, what guessing has.

  Wants all panels that share the axis to be drawn. Without `always` the line is only there where
  the data reach down to it.
  """
  if np.isfinite(share) and (always or 100 * share >= ax.get_ylim()[0]):
    ax.axhline(
      100 * share, color=INK, linestyle=(0, (1, 2)), linewidth=1, label='guessing', zorder=0
    )
  low, high = ax.get_ylim()
  ax.set_ylim(max(low, metric.scale * metric.low), min(high, metric.scale * metric.high))
  for line in ax.lines:
    line.set_clip_on(False)


def method_style(results: Results) -> Callable[[str], dict]:
  """The look of a method: ink and dashes for the baseline, else colours in the config's order."""
  others = [method for method in results.methods if method != results.baseline]

  def style(method: str) -> dict:
    if method == results.baseline:
      return {'color': INK, 'marker': MARKERS[-1], 'linestyle': '--'}
    i = others.index(method)
    return {
      'color': _COLOURS[i % len(_COLOURS)],
      'marker': MARKERS[i % (len(MARKERS) - 1)],
      'linestyle': '-' if i < len(_COLOURS) else ':',
    }

  return style


def scale(num: int) -> list[dict]:
  """Looks for an ordered quantity, from cool to warm."""
  ramp = ('#0072B2', '#56B4E9', '#009E73', '#E69F00', '#D55E00', '#CC79A7')
  places = np.linspace(0, 4, num) if 1 < num <= 5 else np.arange(num)
  return [
    {'color': ramp[round(place) % len(ramp)], 'marker': MARKERS[i % len(MARKERS)]}
    for i, place in enumerate(places.tolist())
  ]


def panels(num: int, columns: int, width: float = 3.3, height: float = 2.7, sharey: bool = True):
  """(figure, its first `num` panels) in rows of `columns`; widths and heights in inches a panel.

  Figures of about 6 inches are still read on a telephone, so two columns are many.
  """
  columns = min(num, columns)
  rows = math.ceil(num / columns)
  width = max(columns * width, 5.6)
  figure = Figure(figsize=(width, rows * height + 0.5), layout='constrained')
  grid = np.ravel(figure.subplots(rows, columns, sharey='row' if sharey else False, squeeze=False))
  for ax in grid[num:]:
    ax.set_visible(False)
  return figure, list(grid[:num])


def label_rows(axes, label: str) -> None:
  """Writes `label` on the first panel of each row."""
  for ax in axes:
    if ax.get_subplotspec().is_first_col():
      ax.set_ylabel(label)


def legend(figure: Figure, axes) -> None:
  """One legend for all panels, below them, in as many columns as its longest name lets fit; from
  the third row on it makes the figure higher.
  """
  entries: dict[str, Any] = {}
  for ax in axes:
    handles, labels = ax.get_legend_handles_labels()
    entries.update(zip(labels, handles))
  widest = 0.55 + 0.075 * max(map(len, entries))
  columns = max(1, min(len(entries), int(figure.get_figwidth() / widest)))
  figure.legend(list(entries.values()), list(entries), loc='outside lower center', ncols=columns)
  more = math.ceil(len(entries) / columns) - 2
  figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(more, 0))


def render(figure: Figure) -> tuple[str, bytes]:
  """(SVG, PNG) of a figure, each drawn once; `savefig` goes through it once more before."""
  svg, png = io.BytesIO(), io.BytesIO()
  figure.set_dpi(72)  # an SVG's
  # Without a date and a maker two reports of one study are the same bytes.
  nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
  FigureCanvasSVG(figure).print_svg(svg, metadata=nothing)
  figure.set_layout_engine('none')  # it is laid out; doing so again is what takes the time
  figure.set(dpi=200, facecolor='white')
  FigureCanvasAgg(figure).print_png(png, metadata={'Software': None})
  return svg.getvalue().decode(), png.getvalue()
