"""The figures of a study: colours that colour-blind readers can tell, a marker each, and the baseline in ink."""
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from tlx.report import numbers
from tlx.report.folder import Results
from tlx.report.formats import quantity
from tlx.report.tables import arrow

INK = '#1a1a1b'  # the page replaces it by the colour of its text
_STYLE: dict[Any, Any] = {
    'font.size': 9, 'axes.titlesize': 9, 'axes.labelsize': 9, 'legend.fontsize': 8.5, 'xtick.labelsize': 8, 'ytick.labelsize': 8,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.alpha': 0.18, 'grid.color': INK, 'grid.linewidth': 0.6,
    'text.color': INK, 'axes.labelcolor': INK, 'axes.edgecolor': INK, 'axes.titlecolor': INK, 'xtick.color': INK, 'ytick.color': INK,
    'axes.facecolor': 'none', 'figure.facecolor': 'none', 'legend.frameon': False, 'lines.linewidth': 1.4, 'lines.markersize': 4.5,
    'text.parse_math': False,  # names come from files
    'svg.fonttype': 'none', 'svg.hashsalt': 'tlx'}
# Okabe and Ito's (2008) palette without black, which is the baseline's, and with its yellow darkened to be seen on white.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#A58B00')
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>')
_MAX_COLUMNS = 4


class Drawing(NamedTuple):
  """A figure as it goes to the page and to files."""
  name: str
  caption: str
  svg: str
  png: bytes


def make(results: Results) -> list[Drawing]:
  """Every figure the study has the runs for, in the order of the report."""
  with matplotlib.rc_context(_STYLE):
    plans = (_accuracy, _targets, _freezing, _parameters, _seconds, _learning)
    drawn = [(plan.__name__.strip('_'), plan(results)) for plan in plans]
    return [Drawing(name, made[1], *_render(made[0])) for name, made in drawn if made]


def save(drawings: Sequence[Drawing], folder) -> None:
  """Writes <name>.svg and <name>.png (200 dots an inch, white) into `folder`."""
  folder.mkdir(parents=True, exist_ok=True)
  for drawing in drawings:
    (folder / f'{drawing.name}.svg').write_text(drawing.svg, encoding='utf-8')
    (folder / f'{drawing.name}.png').write_bytes(drawing.png)


def _accuracy(results: Results):
  """Test accuracy against shots."""
  frame = numbers.means(results)
  if not len(frame):
    return None
  figure, axes = _panels(len(results.pairs), 2, width=4.4, height=3.3)
  for ax, (source, target) in zip(axes, results.pairs):
    part = _of(frame, source, target)
    _lines(ax, part, 'shots', 'method', results.methods, _method_style(results), dodge=0.05)
    _shots_axis(ax, part['shots'])
    ax.set(title=arrow(source, target), xlabel='Training examples per class')
  _label_rows(axes, 'Test accuracy (%)')
  _legend(figure, axes)
  return figure, 'Test accuracy against training examples per class: mean over seeds and 95% Student-t interval. Points are moved apart sideways.'


def _targets(results: Results):
  """For several targets: the best depth to freeze, and the gain over a random start of every method."""
  reference = numbers.scratch(results) or results.baseline
  gains = numbers.gains(results, reference)
  if len({target for _, target in results.pairs}) < 2 or not len(gains):
    return None
  depths = numbers.depths(results)
  best = depths[depths['best']].drop_duplicates(['source', 'target', 'shots'], keep='last')
  pairs = [pair for pair in results.pairs if len(_of(gains, *pair))]
  methods = [method for method in results.methods if method in set(gains['method'])]
  sizes = _spread(gains['shots'].unique())
  first = int(len(best) > 0)
  height = 0.8 + len(pairs) * max(0.5, 0.15 * len(methods))
  figure, axes = _panels(first + len(sizes), first + len(sizes), width=2.1, height=height, sharey=False)
  if first:
    _best_depths(axes[0], best, pairs)
  style = _method_style(results)
  for ax, size in zip(axes[first:], sizes):
    for i, method in enumerate(methods):
      part = gains[(gains['method'] == method) & (gains['shots'] == size)]
      places = np.array([pairs.index(pair) for pair in zip(part['source'], part['target'])]) + 0.7 * ((i + 0.5) / len(methods) - 0.5)
      error = 100 * np.nan_to_num(part['difference'] - part['low'])
      ax.errorbar(100 * part['difference'], places, xerr=error, label=method, capsize=2, elinewidth=1, **{**style(method), 'linestyle': 'none'})
    ax.axvline(0, color=INK, linewidth=1)
    ax.set(title=f'{size} per class', xlabel=f'Points over {reference}')
  for ax in axes:
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_yticks(range(len(pairs)), [arrow(*pair) for pair in pairs] if ax is axes[0] else [''] * len(pairs))
    for edge in range(1, len(pairs)):
      ax.axhline(edge - 0.5, color=INK, alpha=0.25, linewidth=0.6)
    ax.grid(axis='y', visible=False)
  _legend(figure, axes)
  left = 'Left: the number of frozen stages with the best mean validation accuracy. ' if first else ''
  return figure, (f'{left}Points: paired difference in test accuracy to {reference} of the methods that start from the source, with 95% '
                  'Student-t interval; ' + ('wholly left of the line is negative transfer.' if numbers.scratch(results) else 'no method starts at random.'))


def _best_depths(ax, best: pd.DataFrame, pairs: list) -> None:
  """Hollow markers in ink, one kind a size, so that none looks like a method's."""
  sizes, stages = sorted(best['shots'].unique()), int(best['num_stages'].max())
  for i, size in enumerate(sizes):
    part = best[best['shots'] == size]
    rows = [pairs.index(pair) + 0.7 * ((i + 0.5) / len(sizes) - 0.5) for pair in zip(part['source'], part['target'])]
    ax.plot(part['frozen_stages'], rows, linestyle='none', label=f'{size} per class', color=INK, marker=_MARKERS[i % len(_MARKERS)],
            fillstyle='none')
  ax.set(title='Best depth (validation)', xlabel=f'Frozen stages of {stages}', xticks=range(stages), xlim=(-0.5, stages - 0.5))


def _freezing(results: Results):
  """Test accuracy against the number of frozen stages, a line per size."""
  frame = numbers.depths(results)
  if not len(frame):
    return None
  pairs = [pair for pair in results.pairs if len(_of(frame, *pair))]
  sizes = sorted(frame['shots'].unique())
  styles = dict(zip(sizes, _scale(len(sizes))))
  figure, axes = _panels(len(pairs), 3)
  for ax, pair in zip(axes, pairs):
    part = _of(frame, *pair)
    _lines(ax, part, 'frozen_stages', 'shots', sizes, styles.get, label='{} per class')
    ax.set(title=arrow(*pair), xlabel=f'Frozen stages of {int(part["num_stages"].max())}', xticks=sorted(part['frozen_stages'].unique()))
  _label_rows(axes, 'Test accuracy (%)')
  _legend(figure, axes)
  named = frame.sort_values('frozen_stages').drop_duplicates(['frozen_stages', 'method'])
  named = ', '.join(f'{depth} {method}' for depth, method in zip(named['frozen_stages'], named['method']))
  return figure, ('Test accuracy against the number of leading stages frozen, methods of one phase that start from the source: mean over seeds and '
                  f'95% Student-t interval. Where several freeze alike, the one that trains most parameters is shown. Depths: {named}.')


def _parameters(results: Results):
  made = _against_cost(results, 'trainable_params', 'Trained parameters', 'the number of trained parameters', dodge=0.12)
  return made and (made[0], made[1] + ' Points are moved apart sideways, since several methods train the same number.')


def _seconds(results: Results):
  return _against_cost(results, 'train_seconds', 'Training seconds', "seconds of training a run (its share of its cohort's)")


def _against_cost(results: Results, column: str, label: str, words: str, dodge: float = 0.0):
  """Test accuracy against a cost on a log axis, a row of panels per pair and a column per size."""
  frame = numbers.means(results).merge(numbers.costs(results)[[*numbers.CELL, column]], on=numbers.CELL)
  frame = frame[frame[column] > 0]
  if not len(frame):
    return None

  def draw(ax, part):
    _lines(ax, part, column, 'method', results.methods, lambda method: {**_method_style(results)(method), 'linestyle': 'none'}, dodge=dodge)
    low, high = part[column].min() / 1.6, part[column].max() * 1.6
    ax.set(xscale='log', xlim=(low, high))
    ax.minorticks_off()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))

  figure = _by_size(results, frame, label, 'Test accuracy (%)', draw)
  return figure, f'Test accuracy against {words}: mean over seeds and 95% Student-t interval.'


def _learning(results: Results):
  """Validation accuracy against step."""
  frame = numbers.curves(results)
  if not len(frame):
    return None
  style = _method_style(results)

  def draw(ax, part):
    for method in results.methods:
      line = part[part['method'] == method].sort_values('step')
      if len(line):
        look = {**style(method), 'marker': 'none' if len(line) > 1 else style(method)['marker']}
        ax.plot(line['step'], 100 * line['mean'], label=method, **look)
        ax.fill_between(line['step'], 100 * line['low'], 100 * line['high'], color=look['color'], alpha=0.12, linewidth=0)

  figure = _by_size(results, frame, 'Training step', 'Validation accuracy (%)', draw)
  return figure, 'Validation accuracy of the chosen runs during training: mean over seeds, band: 95% Student-t interval.'


def _by_size(results: Results, frame: pd.DataFrame, xlabel: str, ylabel: str, draw: Callable) -> Figure:
  """Small multiples: a row per source and target, a column per size (the spread of four where there are more)."""
  sizes = _spread(frame['shots'].unique())
  pairs = [pair for pair in results.pairs if len(_of(frame, *pair))]
  figure, axes = _panels(len(pairs) * len(sizes), len(sizes), width=2.6, height=2.3)
  for ax, (pair, size) in zip(axes, [(pair, size) for pair in pairs for size in sizes]):
    part = _of(frame, *pair)
    draw(ax, part[part['shots'] == size])
    ax.set_title(f'{arrow(*pair)}, {size} per class')
    if pair == pairs[-1]:
      ax.set_xlabel(xlabel)
  _label_rows(axes, ylabel)
  _legend(figure, axes)
  return figure


def _lines(ax, part: pd.DataFrame, x: str, by: str, order: Iterable, style: Callable, label: str = '{}', dodge: float = 0.0) -> None:
  """A line with error bars for each value of `by`, moved apart on a log axis by `dodge` octaves; accuracies in %."""
  present = [value for value in order if value in set(part[by])]
  for i, value in enumerate(present):
    line = part[part[by] == value].sort_values(x)
    places = line[x] * 2.0 ** (dodge * (i - (len(present) - 1) / 2))
    error = 100 * np.nan_to_num(line['mean'] - line['low'])  # NaN of a single seed: no bar
    ax.errorbar(places, 100 * line['mean'], yerr=error, label=label.format(value), capsize=2, elinewidth=1, **style(value))


def _method_style(results: Results) -> Callable[[str], dict]:
  """The look of a method: ink and dashes for the baseline, colours in the order of the config for the rest."""
  others = [method for method in results.methods if method != results.baseline]

  def style(method: str) -> dict:
    if method == results.baseline:
      return {'color': INK, 'marker': _MARKERS[-1], 'linestyle': '--'}
    i = others.index(method)
    return {'color': _COLOURS[i % len(_COLOURS)], 'marker': _MARKERS[i % (len(_MARKERS) - 1)], 'linestyle': '-' if i < len(_COLOURS) else ':'}
  return style


def _scale(num: int) -> list[dict]:
  """Looks for an ordered quantity, from cool to warm."""
  ramp = ('#0072B2', '#56B4E9', '#009E73', '#E69F00', '#D55E00', '#CC79A7')
  places = np.linspace(0, 4, num) if 1 < num <= 5 else np.arange(num)
  return [{'color': ramp[round(place) % len(ramp)], 'marker': _MARKERS[i % len(_MARKERS)]} for i, place in enumerate(places)]


def _spread(sizes) -> list[int]:
  """At most four of the sizes, the smallest and the largest among them."""
  sizes = sorted(sizes)
  if len(sizes) <= _MAX_COLUMNS:
    return sizes
  return [sizes[round(i)] for i in np.linspace(0, len(sizes) - 1, _MAX_COLUMNS)]


def _panels(num: int, columns: int, width: float = 3.3, height: float = 2.7, sharey: bool = True):
  """(figure, its first `num` panels) in rows of `columns`; widths and heights in inches a panel."""
  columns = min(num, columns)
  rows = math.ceil(num / columns)
  width = max(columns * width, 5.6)
  figure = Figure(figsize=(width, rows * height + 0.5), layout='constrained')
  grid = np.ravel(figure.subplots(rows, columns, sharey='row' if sharey else False, squeeze=False))
  for ax in grid[num:]:
    ax.set_visible(False)
  return figure, list(grid[:num])


def _label_rows(axes, label: str) -> None:
  for ax in axes:
    if ax.get_subplotspec().is_first_col():
      ax.set_ylabel(label)


def _shots_axis(ax, shots: pd.Series) -> None:
  sizes = sorted(shots.unique())
  ax.set_xscale('log', base=2)
  ax.set_xticks(sizes, [str(size) for size in sizes])
  ax.minorticks_off()
  ax.set_xlim(sizes[0] / 1.35, sizes[-1] * 1.35)


def _legend(figure: Figure, axes) -> None:
  """One legend for all panels, below them, in as many columns as its longest name lets fit."""
  entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
  widest = 0.55 + 0.075 * max(map(len, entries))
  columns = max(1, min(len(entries), int(figure.get_figwidth() / widest)))
  figure.legend(list(entries.values()), list(entries), loc='outside lower center', ncols=columns)


def _render(figure: Figure) -> tuple[str, bytes]:
  svg, png = io.BytesIO(), io.BytesIO()
  # Without a date and a maker two reports of one study are the same bytes.
  figure.savefig(svg, format='svg', metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
  figure.set_layout_engine('none')  # it is laid out; doing so again is what takes the time
  figure.savefig(png, format='png', dpi=200, facecolor='white', metadata={'Software': None})
  return svg.getvalue().decode(), png.getvalue()


def _of(frame: pd.DataFrame, source: str, target: str) -> pd.DataFrame:
  return frame[(frame['source'] == source) & (frame['target'] == target)]
