"""The figures of a study, each from the frame of numbers that it shows."""

import functools
import itertools
import math
from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from tlx import pictures
from tlx.report import beside, boxes, classes, layers, levels, metrics, numbers
from tlx.report.drawing import (
  INK,
  MARKERS,
  STYLE,
  Drawing,
  label_rows,
  legend,
  lines,
  method_style,
  panels,
  render,
  scale,
  score_axis,
)
from tlx.report.folder import Results, in_order
from tlx.report.formats import quantity
from tlx.report.tables import arrow, per_class, size


def make(results: Results) -> list[Drawing]:
  """Every figure the study has the runs for, in the order of the report."""
  with matplotlib.rc_context(STYLE):
    plans = {
      metrics.name(results.metrics.values()): _scores,
      'targets': _targets,
      'freezing': _freezing,
      'stages': _stages,
      'parameters': _parameters,
      'seconds': _seconds,
      'time': _time,
      'learning': _learning,
      'reliability': _reliability,
      'confusion': _confusion,
      'line': _line,
      'scales': _scales,
      'precision': _precision,
    }
    drawn = [(name, plan(results)) for name, plan in plans.items()]
    also = ''
    if levels.are_crossed(results.runs):
      also = (
        f' Means and intervals are over {levels.over(results.runs)}, crossed, as in the tables.'
      )
    return [Drawing(name, made[1] + also, *render(made[0])) for name, made in drawn if made]


def _scores(results: Results):
  """Test scores against shots."""
  frame = numbers.means(results)
  if not len(frame):
    return None
  figure, axes = panels(len(results.pairs), 2, width=3.1, height=3.0, sharey=_alike(results))
  for ax, (source, target) in zip(axes, results.pairs):
    part = _of(frame, source, target)
    places = _shots_axis(ax, results, target, in_order(part['shots']))
    lines(
      ax,
      part.assign(place=part['shots'].map(places)),
      'place',
      'method',
      results.methods,
      method_style(results),
      dodge=0.05,
      metric=results.metrics[target],
    )
    ax.set(title=arrow(source, target), xlabel=f'Training examples{results.each(target)}')
  _score_axes(axes, results, results.pairs, 'Test')
  legend(figure, axes)
  return figure, (
    f'Test {results.words} against training examples{results.each()}: mean over seeds and '
    '95% Student-t interval '
    '(none where all seeds are alike). Points are moved apart sideways.'
  )


def _targets(results: Results):
  """For several targets of one metric: the best depth to freeze, and every method's gain over a
  random start.
  """
  reference = numbers.scratch(results) or results.baseline
  gains = numbers.gains(results, reference)
  metric = metrics.one(results.metrics.values())
  if len({target for _, target in results.pairs}) < 2 or not len(gains) or not metric:
    return None
  depths = layers.depths(results)
  best = depths[depths['best']].drop_duplicates(['source', 'target', 'shots'], keep='last')
  pairs = [pair for pair in results.pairs if len(_of(gains, *pair))]
  methods = [method for method in results.methods if method in set(gains['method'])]
  sizes = _spread(gains['shots'])
  first = int(len(best) > 0)
  height = 0.8 + len(pairs) * max(0.5, 0.15 * len(methods))
  figure, axes = panels(first + len(sizes), 3, width=2.1, height=height, sharey=False)
  if first:
    _best_depths(axes[0], results, best, pairs)
  style = method_style(results)
  over = 'Points over' if metric.share else 'Difference to'
  worse = 'left' if metric.direction > 0 else 'right'
  for ax, shots in zip(axes[first:], sizes):
    for i, method in enumerate(methods):
      part = gains[(gains['method'] == method) & (gains['shots'] == shots)]
      places = np.array([pairs.index(pair) for pair in zip(part['source'], part['target'])])
      places = places + 0.7 * ((i + 0.5) / len(methods) - 0.5)
      error = metric.scale * np.nan_to_num(part['difference'] - part['low'])
      ax.errorbar(
        metric.scale * part['difference'],
        places,
        xerr=error,
        label=method,
        capsize=2,
        elinewidth=1,
        **{**style(method), 'linestyle': 'none'},
      )
    ax.axvline(0, color=INK, linewidth=1)
    ax.set(title=per_class(results, shots), xlabel=f'{over} {reference}')
  for ax in axes:
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_yticks(
      range(len(pairs)),
      [arrow(*pair) for pair in pairs]
      if ax.get_subplotspec().is_first_col()
      else [''] * len(pairs),
    )
    for edge in range(1, len(pairs)):
      ax.axhline(edge - 0.5, color=INK, alpha=0.25, linewidth=0.6)
    ax.grid(axis='y', visible=False)
  legend(figure, axes)
  left = (
    f'Left: the number of frozen stages with the best mean validation {results.words}. '
    if first
    else ''
  )
  return figure, (
    f'{left}{over.split()[0]}: paired difference in test {results.words} to '
    f'{reference} of the methods that start from the source, with 95% Student-t interval; '
    + (
      f'{worse} of the line is worse; the table of differences says which of them are shown.'
      if numbers.scratch(results)
      else 'no method starts at random.'
    )
  )


def _best_depths(ax, results: Results, best: pd.DataFrame, pairs: list) -> None:
  """Hollow markers in ink, one kind a size, so that none looks like a method's."""
  sizes, stages = in_order(best['shots']), int(best['num_stages'].max())
  for i, shots in enumerate(sizes):
    part = best[best['shots'] == shots]
    rows = [
      pairs.index(pair) + 0.7 * ((i + 0.5) / len(sizes) - 0.5)
      for pair in zip(part['source'], part['target'])
    ]
    ax.plot(
      part['frozen_stages'],
      rows,
      linestyle='none',
      label=per_class(results, shots),
      color=INK,
      marker=MARKERS[i % len(MARKERS)],
      fillstyle='none',
    )
  ax.set(
    title='Best depth (validation)',
    xlabel=f'Frozen stages of {stages}',
    xticks=range(stages),
    xlim=(-0.5, stages - 0.5),
  )


def _freezing(results: Results):
  """Test scores against the number of frozen stages, a line per size."""
  frame = layers.depths(results)
  if not len(frame):
    return None
  pairs = [pair for pair in results.pairs if len(_of(frame, *pair))]
  sizes = in_order(frame['shots'])
  styles = dict(zip(sizes, scale(len(sizes))))
  figure, axes = panels(len(pairs), 2, width=3.1, sharey=_alike(results))
  name = functools.partial(per_class, results)
  for ax, pair in zip(axes, pairs):
    part, metric = _of(frame, *pair), results.metrics[pair[1]]
    lines(ax, part, 'frozen_stages', 'shots', sizes, styles.get, name, metric=metric)
    ax.set(
      title=arrow(*pair),
      xlabel=f'Frozen stages of {int(part["num_stages"].max())}',
      xticks=sorted(part['frozen_stages'].unique()),
    )
  _score_axes(axes, results, pairs, 'Test')
  legend(figure, axes)
  named = frame.sort_values('frozen_stages').drop_duplicates(['frozen_stages', 'method'])
  named = ', '.join(
    f'{depth} {method}' for depth, method in zip(named['frozen_stages'], named['method'])
  )
  return figure, (
    f'Test {results.words} against the number of leading stages frozen, methods of one phase that '
    'start from the source: mean over seeds and 95% Student-t interval. Where several freeze '
    'alike, the one that trains most parameters is shown. '
    f'Depths: {named}.'
  )


def _stages(results: Results):
  """Test scores against the stage that the head follows, a line per size, a panel per family."""
  frame = layers.stages(results)
  if not len(frame):
    return None
  parts = sorted(
    frame.groupby(['source', 'target', 'family'], sort=False),
    key=lambda item: results.pairs.index(item[0][:2]),
  )
  sizes = in_order(frame['shots'])
  styles = dict(zip(sizes, scale(len(sizes))))
  figure, axes = panels(len(parts), 2, width=3.1, height=3.2, sharey=_alike(results))
  name = functools.partial(per_class, results)
  for ax, ((source, target, family), part) in zip(axes, parts):
    named = (
      _of(frame, source, target)
      .sort_values(['depth', 'stage', 'grid'], ascending=[True, False, True])
      .drop_duplicates(['depth', 'grid'])
    )
    places = {at: i for i, at in enumerate(zip(named['depth'], named['grid']))}
    part = part.assign(place=[places[at] for at in zip(part['depth'], part['grid'])])
    lines(ax, part, 'place', 'shots', sizes, styles.get, name, metric=results.metrics[target])
    ax.set(title=f'{arrow(source, target)}: {family}', xlim=(-0.5, len(places) - 0.5))
    ax.set_xticks(
      range(len(places)), list(named['label']), rotation=30, ha='right', rotation_mode='anchor'
    )
  _score_axes(axes, results, [at[:2] for at, _ in parts], 'Test')
  legend(figure, axes)
  return figure, (
    f'Test {results.words} against the stage that the head follows, from the first stages of the '
    'network to its last: mean over seeds and 95% Student-t interval. Each panel shows methods '
    'that differ in this stage only. In brackets: the mean over all places, or over n×n fields; '
    'input: the pixels.'
  )


def _parameters(results: Results):
  made = _against_cost(
    results,
    'trainable_params',
    'Trained parameters',
    'the number of trained parameters',
    dodge=0.12,
  )
  if not made:
    return made
  figure, caption = made
  moved = ' Points are moved apart sideways, since several methods train the same number.'
  return figure, caption + moved


def _seconds(results: Results):
  made = _against_cost(
    results,
    'train_seconds',
    'Training seconds',
    "seconds of training a run (its share of its cohort's)",
    dodge=0.06,
  )
  if not made:
    return None
  apart = numbers.costs(results)['eval_seconds'].notna().any()
  return made[0], made[1] + (
    ' Training steps alone: validation, what frozen stages compute, and compiling are in the '
    'figure of time and the table of costs.'
    if apart
    else ' Validation during training is among them; what frozen stages compute, and compiling, '
    'are not.'
  )


def _time(results: Results):
  """Seconds of a run at the largest size, by what they went into, a bar a method."""
  frame = numbers.costs(results)
  if not len(frame):
    return None
  parts = {
    'train_seconds': 'training',
    'eval_seconds': 'validation and test',
    'feature_seconds': 'features',
    'compile_seconds': 'compiling',
  }
  looks = dict(zip(parts, scale(len(parts))))
  pairs = [pair for pair in results.pairs if len(_of(frame, *pair))]
  figure, axes = panels(
    len(pairs), 2, width=3.1, height=0.9 + 0.24 * len(results.methods), sharey=False
  )
  for ax, pair in zip(axes, pairs):
    part = _of(frame, *pair)
    largest = in_order(part['shots'])[-1]
    part = part[part['shots'] == largest]
    left = np.zeros(len(part))
    for name, words in parts.items():
      seconds = part[name].fillna(0.0).to_numpy()
      if part[name].notna().any():
        ax.barh(
          range(len(part)), seconds, left=left, label=words, color=looks[name]['color'], height=0.7
        )
      left = left + seconds
    ax.set_yticks(range(len(part)), list(part['method']))
    ax.invert_yaxis()
    ax.grid(axis='y', visible=False)
    ax.set(
      title=f'{arrow(*pair)}, {per_class(results, largest, target=pair[1])}', xlabel='Seconds a run'
    )
  legend(figure, axes)
  mixed = (
    ''
    if frame['eval_seconds'].notna().any()
    else ' This folder does not tell validation from training.'
  )
  return figure, (
    "Seconds of a chosen run at the largest size, mean over seeds, as its share of its cohort's "
    'time. Compiling and features are paid by the cohort that comes first: a warm cache has '
    'neither.' + mixed
  )


def _against_cost(results: Results, column: str, label: str, words: str, dodge: float = 0.0):
  """Test scores against a cost on a log axis, a panel per pair and size."""
  frame = numbers.means(results).merge(
    numbers.costs(results)[[*numbers.CELL, column]], on=numbers.CELL
  )
  frame = frame[frame[column] > 0]
  if not len(frame):
    return None

  def draw(ax, part):
    lines(
      ax,
      part,
      column,
      'method',
      results.methods,
      lambda method: {**method_style(results)(method), 'linestyle': 'none'},
      dodge=dodge,
      metric=results.metrics[part['target'].iloc[0]],
    )
    low, high = part[column].min() / 1.6, part[column].max() * 1.6
    ax.set(xscale='log', xlim=(low, high))
    ax.minorticks_off()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))

  figure = _by_size(results, frame, label, 'Test', draw, chance=False)
  return (
    figure,
    f'Test {results.words} against {words}: mean over seeds and 95% Student-t interval.',
  )


def _learning(results: Results):
  """Validation scores against step."""
  frame = numbers.curves(results)
  looks = frame.groupby(numbers.CELL)['step'].nunique()
  if not len(frame) or looks.max() < 2:
    return None  # evaluated once, at the end: no curve
  draw = _banded(results, 'step', apart=True)  # curves that are alike
  figure = _by_size(results, frame, 'Training step', 'Validation', draw)
  solved = [method for method in results.methods if method in results.solved]
  same = _same_curves(frame, results.methods)
  shares = all(metric.share for metric in results.metrics.values())
  cut = ', cut at 0 and 100' if shares else ''
  return figure, (
    f'Validation {results.words} of the chosen runs during training: mean over seeds, band: 95% '
    f'Student-t interval{cut}. Curves are moved apart sideways.'
    + (f' The same everywhere: {"; ".join(same)}.' if same else '')
    + (f' Solved exactly and without a curve: {", ".join(solved)}.' if solved else '')
  )


def _reliability(results: Results):
  """The share of right answers against their probability, a line a method."""
  frame = beside.reliability(results)
  if not len(frame):
    return None
  pairs = [pair for pair in results.pairs if len(_of(frame, *pair))]
  figure, axes = panels(len(pairs), 2, width=3.1, height=3.0)
  style = method_style(results)
  for ax, pair in zip(axes, pairs):
    part = _of(frame, *pair)
    largest = in_order(part['shots'])[-1]
    part = part[part['shots'] == largest]
    ax.plot((0, 100), (0, 100), color=INK, linestyle=(0, (1, 2)), linewidth=1, label='calibrated')
    for method in results.methods:
      line = part[part['method'] == method].sort_values('bin')
      if len(line):
        look = {'linewidth': 1.1, **style(method), 'markersize': 3}
        ax.plot(100 * line['probability'], 100 * line['share'], label=method, **look)
    place = per_class(results, largest, target=pair[1])
    ax.set(title=f'{arrow(*pair)}, {place}', xlabel='Largest probability (%)')
    ax.set(xlim=(0, 100), ylim=(0, 100))
    for line in ax.lines:
      line.set_clip_on(False)
  label_rows(axes, 'Right (%)')
  legend(figure, axes)
  return figure, (
    'Reliability: the share of test examples that are right against their mean largest '
    'probability, bin by bin of that, of all seeds together. Below the dotted line a method is '
    'surer than it is right. Bins of less than 1% of the examples are left out.'
  )


def _line(results: Results):
  """Test scores on the line between the runs of two seeds."""
  frame = beside.lines(results)
  if not len(frame):
    return None
  figure = _by_size(results, frame, 'From one seed to the next', 'Test', _banded(results, 'place'))
  return figure, (
    f'Test {results.words} of the weights on the straight line from the run of one seed (0) to '
    'that of the next (1): mean over pairs of seeds, with 95% Student-t interval as a band. Where '
    'it does not sag, both lie in one basin.'
  )


def _scales(results: Results):
  """Validation scores of merged runs by scale."""
  frame = beside.scales(results)
  if not len(frame):
    return None
  figure = _by_size(results, frame, 'Scale', 'Validation', _banded(results, 'place'))
  return figure, (
    f'Validation {results.words} of weights that are made of other runs, by the scale of what is '
    'added to their start (0: the start; of one run 1 is that run): mean over seeds, with 95% '
    'Student-t interval as a band. The best is taken for each seed.'
  )


def _banded(results: Results, x: str, apart: bool = False) -> Callable:
  """(axes, part of a frame) -> None: draws the means of each method over the column `x` with their
  intervals as a band; `apart`: a little beside each other.
  """
  style = method_style(results)

  def draw(ax, part):
    width = part[x].max() / 120 if apart else 0.0
    metric = results.metrics[part['target'].iloc[0]]
    present = [method for method in results.methods if method in set(part['method'])]
    for i, method in enumerate(present):
      line = part[part['method'] == method].sort_values(x)
      places = line[x] + width * (i - (len(present) - 1) / 2)
      look = {'linewidth': 1.1, 'markersize': 3, **style(method)}
      ax.plot(places, metric.scale * line['mean'], label=method, **look)
      ax.fill_between(
        places,
        metric.scale * line['low'].clip(lower=metric.low),
        metric.scale * line['high'].clip(upper=metric.high),
        color=look['color'],
        alpha=0.12,
        linewidth=0,
      )

  return draw


def _confusion(results: Results):
  """Which classes the best method takes for which, a panel a source and target: all classes, or of
  many those that it confuses most.
  """
  found = []
  for pair in results.pairs:
    table = beside.confusion(results, *pair)
    if table:
      found.append((pair, table, _most_confused(table[2])))
  if not found:
    return None
  most = max(len(shown) for _, _, shown in found)
  side = 2.9 if most <= _WRITTEN else 4.8
  across = 2 if most <= _WRITTEN else 1
  figure, axes = panels(len(found), across, width=side, height=side, sharey=False)
  cut = ''
  for ax, (pair, (method, largest, counts), shown) in zip(axes, found):
    totals = np.where(counts.sum(1) > 0, counts.sum(1), math.nan)
    shares = (counts / totals[:, None])[np.ix_(shown, shown)]
    names = classes.class_names(results, *pair) or list(map(str, range(len(counts))))
    mesh = ax.pcolormesh(100 * shares, cmap='cividis', vmin=0, vmax=100)  # drawn as shapes
    ax.invert_yaxis()
    places = np.arange(len(shown)) + 0.5
    short = [names[k] if len(names[k]) <= 18 else f'{names[k][:17]}…' for k in shown]
    turned = {'rotation': 60, 'ha': 'right', 'rotation_mode': 'anchor'}
    ax.tick_params(labelsize=8 if len(shown) <= _WRITTEN else 7)
    ax.set_xticks(places, short, **(turned if max(map(len, short)) > 2 else {}))
    ax.set_yticks(places, short)
    ax.grid(False)
    place = per_class(results, largest, target=pair[1])
    ax.set(title=f'{arrow(*pair)}: {method},\n{place}', xlabel='Taken for', ylabel='Class')
    if len(shown) <= _WRITTEN:
      _write_shares(ax, shares)
    else:
      figure.colorbar(mesh, ax=ax, shrink=0.7, label='% of the class')
    if len(shown) < len(counts):
      cut = (
        f' Of more than {_NAMED} classes those {_NAMED} that take part in most errors are drawn; '
        'what else is taken for what stands in the file of confused pairs.'
      )
  return figure, (
    'Which classes are taken for which: of the test examples of each class, a row, the share in % '
    'that was taken for each, of all seeds together. Of the method that is best on validation at '
    f'the largest size.{cut}'
  )


def _precision(results: Results):
  """Precision over recall, a panel a source and target and a line a class."""
  found = []
  for pair in results.pairs:
    if looked := boxes.judged(results, *pair):
      found.append((pair, looked))
  if not found:
    return None
  figure, axes = panels(len(found), 2, width=3.1, height=3.0)
  for ax, (pair, looked) in zip(axes, found):
    names = classes.class_names(results, *pair)
    objects = looked.everything.objects
    counts = np.bincount(objects.labels[objects.crowd == 0], minlength=len(names))
    common = np.argsort(-counts, kind='stable')[:_LINES]
    for label in sorted(common[counts[common] > 0].tolist()):
      line = boxes.curve(looked.everything, label)
      colour = pictures.COLOURS[label % len(pictures.COLOURS)]
      words = f'{names[label]} ({counts[label]:,})'
      ax.plot(*(100 * line.T), color=colour, linewidth=1.3, label=words)
    place = per_class(results, looked.shots, target=pair[1])
    ax.set(title=f'{arrow(*pair)}: {looked.method},\n{place}', xlabel='Recall (%)')
    ax.set(xlim=(0, 101), ylim=(0, 101))
  label_rows(axes, 'Precision (%)')
  legend(figure, axes)
  return figure, (
    'Precision over recall at an IoU of 0.5 as boxes of lower scores are taken in, a line a class '
    '(its test objects in brackets). Of the method that is best on validation at the largest size, '
    f'first seed. Of more than {_LINES} classes the commonest are drawn.'
  )


_LINES = 7  # classes of which curves are drawn
_NAMED, _WRITTEN = 24, 12  # classes that are drawn, and whose shares are written


def _most_confused(counts: np.ndarray) -> np.ndarray:
  """The classes to draw, in their order: all, or those that take part in most errors."""
  wrong = counts * (1 - np.eye(len(counts)))
  errors = wrong.sum(0) + wrong.sum(1)
  return np.sort(np.argsort(-errors, kind='stable')[:_NAMED])


def _write_shares(ax, shares: np.ndarray) -> None:
  """The shares of at least half a percent as numbers, in what stands out from the colour."""
  for row, of_row in enumerate(shares):
    for column, share in enumerate(of_row):
      if share >= 0.005:
        colour = 'black' if share > 0.55 else 'white'
        text = f'{100 * share:.0f}'
        place = column + 0.5, row + 0.5
        ax.text(*place, text, ha='center', va='center', fontsize=6.5, color=colour)


def _same_curves(frame: pd.DataFrame, methods: list[str]) -> list[str]:
  """['full and freeze_0', ...]: methods whose mean curves are equal at every size and step."""
  alike: dict[tuple, list[str]] = {}
  for method in methods:
    part = frame[frame['method'] == method].sort_values(['source', 'target', 'shots', 'step'])
    if len(part):
      points = part[['source', 'target', 'shots', 'step', 'mean']]
      curve = tuple(points.itertuples(index=False, name=None))
      alike.setdefault(curve, []).append(method)
  return [' and '.join(same) for same in alike.values() if len(same) > 1]


def _by_size(
  results: Results,
  frame: pd.DataFrame,
  xlabel: str,
  part_name: str,
  draw: Callable,
  chance: bool = True,
) -> Figure:
  """Small multiples: a panel per source, target and size (four sizes, spread, of more).

  `part_name` says what the scores are of: 'Test' or 'Validation'.
  """
  sizes = _spread(frame['shots'])
  pairs = [pair for pair in results.pairs if len(_of(frame, *pair))]
  places = list(itertools.product(pairs, sizes))
  names = [(arrow(*pair), per_class(results, shots, target=pair[1])) for pair, shots in places]
  comma = ',\n' if max(len(pair + shots) for pair, shots in names) > 34 else ', '
  figure, axes = panels(len(places), 2, width=3.1, height=2.3, sharey=_alike(results))
  for ax, name, (pair, shots) in zip(axes, names, places):
    part = _of(frame, *pair)
    draw(ax, part[part['shots'] == shots])
    ax.set_title(comma.join(name))
  for ax in axes[-2:]:
    ax.set_xlabel(xlabel)
  _score_axes(axes, results, [pair for pair, _ in places], part_name, chance)
  legend(figure, axes)
  return figure


def _alike(results: Results) -> bool:
  """Whether all targets are scored by one column, so that panels may share an axis."""
  return metrics.one(results.metrics.values()) is not None


def _score_axes(axes, results: Results, pairs, part_name: str, always: bool = True) -> None:
  """Axes of scores, each of a (source, target), with their labels: within what the metric can be,
  with what guessing has.
  """
  for ax, (_, target) in zip(axes, pairs):
    metric = results.metrics[target]
    score_axis(ax, metric, numbers.chance(results, target), always)
    if not _alike(results):
      ax.set_ylabel(_axis(metric, part_name))
  if _alike(results):
    label_rows(axes, _axis(results.metrics[pairs[0][1]], part_name))


def _axis(metric: metrics.Metric, part_name: str) -> str:
  """'Test accuracy (%)'; 'Test bits per byte, less is better', in two lines."""
  return f'{part_name} {metric.axis}' + ('\nless is better' if metric.direction < 0 else '')


def _spread(sizes, most: int = 4) -> list[int]:
  """At most four of the sizes, the smallest and the largest among them."""
  sizes = in_order(sizes)
  return (
    sizes if len(sizes) <= most else [sizes[round(i)] for i in np.linspace(0, len(sizes) - 1, most)]
  )


def _shots_axis(ax, results: Results, target: str, sizes: list[int]) -> dict[int, float]:
  """{size: its place} on a log axis: all examples at their number a class, or two octaves after the
  rest where it is not known.
  """
  places, names = {}, []
  for shots in sizes:
    place = numbers.per_class(results, shots, target)
    places[shots] = (4 * max(sizes) or 1) if math.isnan(place) else place
    name = size(results, shots, target)
    names.append(f'\n{name}' if not shots and len(sizes) > 1 else name)
  ax.set_xscale('log', base=2)
  ax.set_xticks(list(places.values()), names)
  ax.minorticks_off()
  ax.set_xlim(places[sizes[0]] / 1.35, places[sizes[-1]] * 1.35)
  return places


def _of(frame: pd.DataFrame, source: str, target: str) -> pd.DataFrame:
  return frame[(frame['source'] == source) & (frame['target'] == target)]
