"""The tables of a study, each as strings to show and as numbers to work with."""

import functools
import math
from collections.abc import Mapping

import pandas as pd

from tlx.report import (
  beside,
  boxes,
  cautions,
  claims,
  classes,
  layers,
  levels,
  metrics,
  numbers,
  sampling,
)
from tlx.report.folder import Results, by_size, in_order, phases_of
from tlx.report.formats import Table, percent, probability, quantity, slug
from tlx.report.metrics import Metric


def make(results: Results, test_sampling: bool = False) -> list[Table]:
  """Every table the study has the runs for, in the order of the report; `test_sampling` adds
  intervals that draw test examples too.
  """
  return [
    *claims.tables(results),
    *scores(results),
    *measures(results),
    *(sampled(results) if test_sampling else ()),
    *across(results),
    *differences(results),
    *multipliers(results),
    *speeds(results),
    *stages(results),
    *confused(results),
    *by_class(results),
    *precisions(results),
    *box_errors(results),
    *rates(results),
    *costs(results),
    *times(results),
    *failed(results),
  ]


def arrow(source: str, target: str) -> str:
  """'mnist → digits'; the target alone where there is no source."""
  return f'{source} → {target}' if source else target


def size(results: Results, shots: int, target: str = '') -> str:
  """'5'; 'all (93)' for all examples, with their mean number a class, 'all' where it is not known
  or not one for all targets.
  """
  number = numbers.per_class(results, shots, target)
  return str(shots) if shots else 'all' if math.isnan(number) else f'all ({number:.0f})'


def per_class(results: Results, *shots: int, target: str = '') -> str:
  """'1, 5, all (93) per class'; 'all examples' where that is all there is to say."""
  text = ', '.join(size(results, number, target) for number in shots)
  if text == 'all':
    return 'all examples'
  return f'{text}{results.each(target) or " examples"}'


def scores(results: Results) -> list[Table]:
  """Test scores of the chosen runs, methods x shots, one table a source and target."""
  frame = numbers.means(results)
  useless = cautions.unusable(results)
  reasons = {_cell(row): row['reason'] for row in useless.to_dict('records')}
  made = []
  for source, target, part in _by_pair(frame, results):
    metric = results.metrics[target]
    over = _over(results, source, target)
    most = part['n'].max() if over else frame['n'].max()

    def show(row: Mapping, most=most, metric=metric) -> str:
      return _mean(row, most, metric) + ' †' * (_cell(row) in reasons)

    part = part.assign(unusable=[reasons.get(_cell(row), '') for row in part.to_dict('records')])
    shown = _wide(part, results, show)
    note = (
      f'Mean ± half-width of the 95% Student-t interval over {most} seeds; n where fewer.'
      if most > 1
      else 'One seed: no interval.'
    )
    if most == 2:
      note += (
        ' Of two seeds the width of an interval rests on one difference and is chance itself: read '
        'no interval of this table as sure; five seeds are a beginning.'
      )
    if over:
      note = (
        f'Mean ± half-width of the 95% interval over {over}: it holds the variance of each and of '
        'their combinations (crossed random effects); n where there are fewer runs.'
      )
    note += _unvaried(part, results)
    share = numbers.chance(results, target)
    note += f' Guessing has {percent(share)}%.' if math.isfinite(share) else ''
    if part['unusable'].any():
      note += f' † cannot be used: {_reasons(part, results, target)}.'
    note += ' ' + cautions.intervals(results, source, target)
    title = f'Test {metric.sided}, {arrow(source, target)}, {_by(results, target)}'
    made.append(Table(slug(metric.column, source, target), title, shown, part, note.strip()))
  return made


def _over(results: Results, source: str, target: str) -> str:
  """'3 source seeds and 5 seeds': what the runs of a pair vary; '' where it is the seed at most."""
  runs = numbers.tested(results)
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  return levels.over(runs) if levels.are_crossed(runs) else ''


def _unvaried(part: pd.DataFrame, results: Results) -> str:
  """What a mean without an interval means, where there is one of several runs."""
  note = ''
  if ((part['n'] > 1) & part['low'].isna()).any():
    note += ' “alike”: equal in all seeds, which makes nothing certain, so there is no interval.'
  copies = numbers.tested(results).groupby(numbers.CELL)['deterministic'].all()
  if any(copies.get(_cell(row), False) for row in part.to_dict('records')):
    note += (
      ' What no seed changes (an exact solution of all examples, weights as they are, a network '
      'made of all seeds) is one result, whatever the number of seeds.'
    )
  return note


def _cell(row: Mapping) -> tuple:
  return tuple(row[key] for key in numbers.CELL)


def _reasons(part: pd.DataFrame, results: Results, target: str) -> str:
  rows = part[part['unusable'] != ''].to_dict('records')
  return '; '.join(
    f'{row["method"]} at {size(results, row["shots"], target)}: {row["unusable"]}' for row in rows
  )


def sampled(results: Results) -> list[Table]:
  """Scores and differences with intervals over seeds and test examples, a table a pair; where
  answers are counted.
  """
  made = []
  for source, target, part in _by_pair(sampling.intervals(results, results.baseline), results):
    part = part.sort_values('shots', kind='stable', key=by_size)
    shown = pd.DataFrame(
      {
        'Method': part['method'],
        'Shots': [size(results, shots, target) for shots in part['shots']],
        results.metrics[target].words.capitalize(): part['mean'].map(percent),
        'with test sampling': [
          _interval(max(row['low'], 0.0), min(row['high'], 1.0)) for row in part.to_dict('records')
        ],
      }
    )
    if part['difference'].notna().any():
      shown[f'Minus {results.baseline}'] = [
        percent(value, signed=True) for value in part['difference']
      ]
      shown['with test sampling '] = [
        _interval(row['difference_low'], row['difference_high'], signed=True)
        for row in part.to_dict('records')
      ]
    note = (
      '95% intervals that take seeds and test examples as drawn: 2,000 draws of the test set with '
      'replacement, the same for all methods; in each the mean over seeds from its Student-t '
      'distribution. Of one seed (–) there is none, but of a result that depends on no seed. '
      'Differences are paired by seed and by example.'
    )
    made.append(
      Table(
        slug('sampled', source, target),
        f'Test {results.metrics[target].sided} with test sampling, {arrow(source, target)}',
        shown,
        part,
        note,
      )
    )
  return made


def measures(results: Results) -> list[Table]:
  """All other numbers of the test at the largest size, measures x methods, a table a pair."""
  made = []
  for source, target, frame in _by_pair(beside.measures(results), results):
    largest = in_order(frame['shots'])[-1]
    part = frame[frame['shots'] == largest]
    most = part['n'].max()
    methods = [method for method in results.methods if method in set(part['method'])]
    cells = {}
    for row in part.to_dict('records'):
      cells[row['column'], row['method']] = _mean(row, most, metrics.of(row['column']))
    lines = []
    for column in dict.fromkeys(part['column']):
      metric = metrics.of(column)
      arrow_of = {1: ' ↑', -1: ' ↓'}.get(metric.direction, '')
      name = metric.axis[0].upper() + metric.axis[1:]
      lines.append([name + arrow_of, *(cells.get((column, method), '–') for method in methods)])
    shown = pd.DataFrame(lines, columns=['Measure', *methods])
    note = (
      'Of the chosen runs on the test set; mean ± as above. ↑: more is better, ↓: less is. '
      'Settings were chosen by none of these. The file of numbers has every size.'
    )
    place = per_class(results, largest, target=target)
    title = f'Other measures at {place}, {arrow(source, target)}'
    made.append(Table(slug('measures', source, target), title, shown, frame, note))
  return made


def across(results: Results) -> list[Table]:
  """Over several targets: the interquartile mean, and how often a method beats the baseline."""
  frame = numbers.across_targets(results, results.baseline)
  made = []
  for source, part in frame.groupby('source', sort=False):
    metric = next(
      results.metrics[target] for start, target in results.pairs if start == str(source)
    )
    shown = _wide(part, results, functools.partial(_interquartile, metric))
    note = 'Interquartile mean over targets and seeds with the stratified bootstrap 95% interval'
    if levels.are_crossed(results.runs[results.runs['source'] == source]):
      note += ' of the seeds alone, each the mean over its source seeds and folds'
    if results.baseline:
      note += f'; P: the chance that a run beats a run of {results.baseline}, ties half, mean over '
      note += 'targets'
    note += '.'
    title = f'Test {metric.sided} over {part["num_targets"].iloc[0]} targets' + (
      f', source {source}' if source else ''
    )
    made.append(Table(slug('across_targets', str(source)), title, shown, part, note))
  return made


def differences(results: Results) -> list[Table]:
  """Paired differences to the baseline, one table a source and target, sizes below each other."""
  made = []
  for source, target, part in _by_pair(numbers.differences(results, results.baseline), results):
    metric = results.metrics[target]
    part = part.sort_values('shots', kind='stable', key=by_size)
    shown = pd.DataFrame(
      {
        'Method': part['method'],
        'Shots': [size(results, shots, target) for shots in part['shots']],
        'Difference': [metric.written(d, signed=True) for d in part['difference']],
        '95% interval': [
          _interval(row['low'], row['high'], True, metric) for row in part.to_dict('records')
        ],
        'Pairs': [_pairs(row) for row in part.to_dict('records')],
        'Won/tied/lost': [
          f'{won}/{tied}/{lost}'
          for won, tied, lost in zip(part['wins'], part['ties'], part['losses'])
        ],
        't-test p': part['t_p'].map(probability),
        'Holm p': part['holm_p'].map(probability),
      }
    )
    if part['wilcoxon_p'].notna().any():
      shown['Wilcoxon p'] = part['wilcoxon_p'].map(probability)
    shown['Shown'] = part['verdict'].replace({'': '–', 'not shown': 'no'})
    over = _over(results, source, target)
    same = 'source seed, fold, seed and subset' if over else 'seed and subset'
    note = (
      f'{_differing(metric)}, same {same}; Holm over the '
      f'{int(part["t_p"].notna().sum())} comparisons of this table that can be tested. –: one '
      'pair, or pairs that do not vary, say nothing about chance. Shown: higher or lower where the '
      'interval excludes 0, Holm p is below 0.05 and there are three pairs or more; no: not to be '
      'read as a finding, its sign included.'
    )
    if over:
      note += (
        f' Interval and test are over {over}, crossed: the pairs are not independent of each other.'
      )
    if not set(part['verdict']) & {'higher', 'lower'}:
      note += ' No difference of this table is shown.'
    title = f'Difference to {results.baseline}, {arrow(source, target)}'
    made.append(Table(slug('differences', source, target), title, shown, part, note))
  return made


def multipliers(results: Results) -> list[Table]:
  """Effective data multipliers over the baseline, methods x shots."""
  made = []
  for source, target, part in _by_pair(numbers.multipliers(results, results.baseline), results):
    shown = _wide(part, results, _multiplier)
    note = (
      f'How many times the examples {results.baseline} needs for the same mean test '
      f'{results.metrics[target].words}; its '
      'curve is interpolated in log examples, never extrapolated (≥, ≤). Intervals: 95% of paired '
      'draws of the seeds; ∞ and 0 are beyond the curve, and of fewer than ten seeds they are too '
      'narrow.'
    )
    if part['multiplier'].isna().any():
      note += (
        f' –: the curve of {results.baseline} does not rise with data, so it cannot say what data '
        'are worth.'
      )
    made.append(
      Table(
        slug('data', source, target),
        f'Effective data multiplier, {arrow(source, target)}',
        shown,
        part,
        note,
      )
    )
  return made


def speeds(results: Results) -> list[Table]:
  """Steps until the baseline's last validation score, methods x shots."""
  made = []
  for source, target, part in _by_pair(numbers.speeds(results, results.baseline), results):
    shown = _wide(
      part, results, lambda row: f'{quantity(row["median_steps"])} ({row["reached"]}/{row["n"]})'
    )
    begin = (
      'from chance at step 0'
      if results.metrics[target].counted
      else 'from the first of these on, which is the least that can be read,'
    )
    note = (
      'Median over seeds of the steps to the last mean validation '
      f'{results.metrics[target].words} of {results.baseline} '
      'at that size (∞: half the runs never get there), and how many of the runs do. Every curve '
      f'is read at the steps of the method that was evaluated least often, {begin} '
      'and straight between, so that evaluating more often brings nothing forward.'
    )
    made.append(
      Table(
        slug('speed', source, target),
        f'Steps to match {results.baseline}, {arrow(source, target)}',
        shown,
        part,
        note,
      )
    )
  return made


def stages(results: Results) -> list[Table]:
  """Test scores by the stage that the head follows, stages x shots, a table a pair and family."""
  made = []
  for source, target, frame in _by_pair(layers.stages(results), results):
    metric = results.metrics[target]
    for family, part in frame.groupby('family', sort=False):
      sizes, most = in_order(part['shots']), part['n'].max()
      cells = {
        (row['depth'], row['label'], row['shots']): _mean(row, most, metric) + ' *' * row['best']
        for row in part.to_dict('records')
      }
      rows = part.drop_duplicates(['depth', 'label'])
      lines = []
      for label, depth in zip(rows['label'], rows['depth']):
        found = [cells.get((depth, label, shots), '') for shots in sizes]
        lines.append([label, str(depth), *found])
      heads = [size(results, shots, target) for shots in sizes]
      shown = pd.DataFrame(lines, columns=['Head after', 'Stages', *heads])
      note = (
        f'{family}: mean ± half-width of the 95% Student-t interval over seeds; * is best by mean '
        f'validation {metric.words} at its size. In brackets how places become features: '
        'averaged over n×n fields, or over all (mean), which says least of early stages.'
      )
      if 'input' in set(part['stage']):
        note += (
          ' “input” are the pixels, before any stage: what a stage must beat to be worth anything.'
        )
      title = (
        f'Test {metric.sided} by stage, {family}, {arrow(source, target)}, {_by(results, target)}'
      )
      made.append(Table(slug('stages', source, target, str(family)), title, shown, part, note))
  return made


def precisions(results: Results) -> list[Table]:
  """AP of each class at the largest size, methods x classes, a table a source and target."""
  frame, made = boxes.by_class(results), []
  for source, target, part in _by_pair(frame, results) if len(frame) else ():
    largest = in_order(part['shots'])[-1]
    rows = part[part['shots'] == largest]
    names = list(dict.fromkeys(rows['class']))
    columns = {'Method': [method for method in results.methods if method in set(rows['method'])]}
    for name in names[:_MOST_CLASSES]:
      of_class = rows[rows['class'] == name].set_index('method')
      columns[name] = [
        f'{percent(of_class.at[method, "AP"])} / {percent(of_class.at[method, "AP50"])}'
        for method in columns['Method']
      ]
    note = 'AP over IoU 0.5 to 0.95 / AP at 0.5, in %, means over the chosen runs.'
    if len(names) > _MOST_CLASSES:
      note += f' The first {_MOST_CLASSES} of {len(names)} classes; the file of numbers has all.'
    title = f'AP by class at {per_class(results, largest, target=target)}, {arrow(source, target)}'
    made.append(Table(slug('ap', source, target), title, pd.DataFrame(columns), part, note))
  return made


def box_errors(results: Results) -> list[Table]:
  """What is wrong with the boxes of methods at the largest size, a table a source and target."""
  made = []
  for source, target in results.pairs:
    largest, frame = boxes.counted(results, source, target)
    if not len(frame):
      continue
    heads = {'method': 'Method', 'objects': 'Objects', 'right': 'Right', 'class': 'Wrong class'}
    shown = frame[['method', 'objects', 'right', *boxes.KINDS]].astype(str)
    shown = shown.rename(columns={name: heads.get(name, name.capitalize()) for name in shown})
    note = (
      'Counts of boxes by the kinds of TIDE (Bolya et al. 2020) at IoU 0.5 and 0.1, of the first '
      'seed and from the score on where its F1 over the test images is best. Localisation: near an '
      'object of its class; both: near one of another; missed: objects without a box that is '
      'right, near or of a wrong class.'
    )
    place = per_class(results, largest, target=target)
    title = f'Errors of boxes at {place}, {arrow(source, target)}'
    made.append(Table(slug('errors', source, target), title, shown, frame, note))
  return made


_MOST_CLASSES = 12  # that a table has columns for
_MOST_PAIRS = 12  # of classes that a table shows


def confused(results: Results) -> list[Table]:
  """The pairs of classes that the best method takes for each other most, a table a pair."""
  made = []
  for source, target in results.pairs:
    frame, found = beside.confused(results, source, target), None
    if len(frame):
      found = beside.confusion(results, source, target)
    if found is None:
      continue
    method, largest, _ = found
    names = classes.class_names(results, source, target)
    for column in ('class', 'taken_for'):
      frame[column] = [names[k] if k < len(names) else str(k) for k in frame[column]]
    part = frame.head(_MOST_PAIRS)
    shown = pd.DataFrame(
      {
        'Class': part['class'],
        'Taken for': part['taken_for'],
        'Times': [f'{count} of {total}' for count, total in zip(part['count'], part['total'])],
        'Share': [percent(share) + '%' for share in part['count'] / part['total']],
        'And back': part['back'].astype(str),
      }
    )
    note = (
      f'Of {method}, best on validation: all its runs together, so a test example counts once a '
      'run. And back: how many of the other class were taken for this one.'
    )
    if len(frame) > len(part):
      note += f' The {len(part)} most common of {len(frame)} pairs; the file of numbers has all.'
    title = (
      f'Confused most at {per_class(results, largest, target=target)}, {arrow(source, target)}'
    )
    made.append(Table(slug('confused', source, target), title, shown, frame, note))
  return made


def by_class(results: Results) -> list[Table]:
  """The mean recall of the classes, methods x shots, and class by class at the largest size."""
  recalls, balanced = classes.recalls(results), classes.balanced(results)
  most = balanced['n'].max() if len(balanced) else 0
  made = []
  for source, target, part in _by_pair(balanced, results):
    note = (
      'The mean of the recalls of all classes, so that common classes count no more than rare '
      f'ones; ± as for {results.metrics[target].words}.' + _unvaried(part, results)
    )
    sided = results.metrics[target].sided
    title = f'Balanced test {sided}, {arrow(source, target)}, {_by(results, target)}'
    made.append(
      Table(
        slug('balanced', source, target),
        title,
        _wide(part, results, lambda row: _mean(row, most, metrics.BALANCED)),
        part,
        note,
      )
    )
  for source, target, frame in _by_pair(recalls, results):
    largest = in_order(frame['shots'])[-1]
    part = frame[frame['shots'] == largest]
    worst = part.groupby(['index', 'class'])['mean'].mean().reset_index()
    shown_classes = worst.nsmallest(_MOST_CLASSES, 'mean').sort_values('index')
    cells = {(row['method'], row['index']): percent(row['mean']) for row in part.to_dict('records')}
    methods = [method for method in results.methods if method in set(part['method'])]
    lines = []
    for i, name in zip(shown_classes['index'], shown_classes['class']):
      lines.append([name, *(cells.get((method, i), '') for method in methods)])
    shown = pd.DataFrame(lines, columns=['Class', *methods])
    note = (
      'The share of the test examples of a class that was found, mean over seeds; the file of '
      'numbers has every size.'
    )
    if part['count'].notna().any():
      best = _best_of(results, source, target, largest)
      of_best = part[part['method'] == best].set_index('index').reindex(shown_classes['index'])
      shown.insert(1, 'Examples', [f'{count:.0f}' for count in of_best['count']])
      intervals = [_interval(low, high) for low, high in zip(of_best['low'], of_best['high'])]
      shown.insert(list(shown.columns).index(best) + 1, '95%', intervals)
      note += (
        f' 95%: of {best}, best on validation, Wilson’s interval over drawing the test examples of '
        'the class; what seeds add is not in it, and the intervals of all methods are in the file.'
      )
    if len(worst) > len(shown_classes):
      note += f' The {len(shown_classes)} of {len(worst)} classes that are found least.'
    made.append(
      Table(
        slug('recall', source, target),
        f'Recall in % at {per_class(results, largest, target=target)}, {arrow(source, target)}',
        shown,
        frame,
        note,
      )
    )
  return made


_MOST_CLASSES = 30  # that a table shows


def _best_of(results: Results, source: str, target: str, shots: int) -> str:
  """The method with the best mean validation score of a source, target and size."""
  runs = numbers.tested(results)
  alike = (runs['source'] == source) & (runs['target'] == target) & (runs['shots'] == shots)
  return numbers.by_validation(results, runs[alike])[0][0]


def rates(results: Results) -> list[Table]:
  """Chosen learning rates or penalties, methods x shots; marks and words where the choice lies at
  the edge of what was tried.
  """
  frame = numbers.rates(results)
  made = []
  for source, target, part in _by_pair(frame, results):
    said: dict[tuple, dict[str, None]] = {}
    for row in part.to_dict('records'):
      said.setdefault(_cell(row), {})[_setting(results, row)] = None
    shown = _wide(part, results, lambda row, said=said: ', '.join(said[_cell(row)]))
    shown.insert(
      1,
      'Settings tried',
      [_span(part.loc[part['method'] == method, 'settings']) for method in shown['Method']],
    )
    of_levels = [name for name in ('source_seed', 'fold') if part[name].nunique() < 2]
    part = part.drop(columns=of_levels)
    what = 'penalties' if results.solved.issuperset(part['method']) else 'learning rates'
    what += (
      ' and penalties' if what == 'learning rates' and results.solved & set(part['method']) else ''
    )
    note = ' '.join(
      [
        *(['Each source seed and fold chooses for itself.'] if len(of_levels) < 2 else []),
        _edges(results, part, target),
        *_extended(results),
        *_fixed(results, shown['Method']),
        cautions.validation(results, source, target),
      ]
    )
    made.append(
      Table(
        slug('rates', source, target),
        f'Chosen {what}, {arrow(source, target)}',
        shown,
        part,
        note.strip(),
      )
    )
  return made


def _extended(results: Results) -> list[str]:
  """What the study did by itself where choices lay at an edge."""
  most = (results.config.get('grid') or {}).get('extend')
  if not most:
    return []
  return [
    f'Up to {most} rates were added where the chosen one lay at an edge (grid.extend), so methods '
    'differ in how many they tried.'
  ]


_MARKS = {'lowest tried': ' ↓', 'highest tried': ' ↑'}


def _setting(results: Results, row: Mapping) -> str:
  """'0.003 ↑ (wd 0.1 ↓)', 'penalty 0.1 ↑' of an exact solution."""
  decay = f'{row["weight_decay"]:g}{_MARKS.get(row["decay_edge"], "")}'
  if row['method'] in results.solved:
    return f'penalty {decay}'
  if not row['learning_rate'] and not row['fixed']:
    return 'no steps'
  rate = row['fixed'] or f'{row["learning_rate"]:g}{_MARKS.get(row["edge"], "")}'
  return rate + (f' (wd {decay})' if row['weight_decay'] or row['decays'] > 1 else '')


def _edges(results: Results, part: pd.DataFrame, target: str) -> str:
  """How many choices lie at an edge and which way to extend the grid of which method."""
  if (part['settings'] == 1).all():
    return 'One setting each: nothing was chosen.'
  edges = part['edge'].isin(_MARKS) | part['decay_edge'].isin(_MARKS)
  says = []
  if edges.any():
    says.append(
      f'{int(edges.sum())} of {len(part)} choices lie at the edge of what was tried (↓ lowest, ↑ '
      f'highest): the best may lie beyond it. Extend the grid: {_advice(results, part, target)}.'
    )
  short = part[(part['edge'] == 'of two') | (part['decay_edge'] == 'of two')]
  if len(short):
    says.append(
      f'{", ".join(dict.fromkeys(short["method"]))}: of two values each is at an edge, so the grid '
      'is too short to tell whether the best lies beyond it; try three or more.'
    )
  return ' '.join(says) or 'No choice lies at the edge of what was tried.'


def _advice(results: Results, part: pd.DataFrame, target: str) -> str:
  """'learning rates above 0.01 for full (at 5, 20), lp_ft (at 5); penalties below 0.1 for probe (at
  1)'.
  """
  said: dict[str, list[str]] = {}
  for method, rows in part.groupby('method', sort=False):
    decay = 'penalties' if method in results.solved else 'weight decays'
    grids = (
      ('edge', 'learning rates', ('lowest', 'highest')),
      ('decay_edge', decay, ('lowest_decay', 'highest_decay')),
    )
    for edge, what, limits in grids:
      for mark, word, limit in zip(_MARKS, ('below', 'above'), limits):
        found = rows[rows[edge] == mark]
        if len(found):
          sizes = ', '.join(size(results, shots, target) for shots in found['shots'].unique())
          said.setdefault(f'{what} {word} {found[limit].iloc[0]:g}', []).append(
            f'{method} (at {sizes})'
          )
  return '; '.join(f'{what} for {", ".join(methods)}' for what, methods in said.items())


def _fixed(results: Results, methods) -> list[str]:
  """A sentence for every method whose phases fix their rates, or some of them."""
  said = []
  for method in methods:
    rates = []
    for phase in phases_of(results.config, method):
      if phase.get('solver', 'sgd') == 'sgd':
        rates.append(phase.get('learning_rate') or 0.0)
    if any(rates):
      parts = ', '.join(f'{rate:g}' if rate else 'the chosen one' for rate in rates)
      if all(rates):
        said.append(f'{method} has its rates fixed by its phases: {parts}.')
      else:
        said.append(f'Rates of the phases of {method}: {parts}.')
  return said


def costs(results: Results) -> list[Table]:
  """What a chosen run costs at the largest size; the file of numbers has every size."""
  saved = numbers.reuse(results)
  made = []
  for source, target, frame in _by_pair(numbers.costs(results), results):
    largest = in_order(frame['shots'])[-1]
    part = frame[frame['shots'] == largest]
    solved = part['method'].isin(results.solved)
    apart = bool(part['eval_seconds'].notna().any())
    shown = pd.DataFrame(
      {
        'Method': part['method'],
        'Trained params': part['trainable_params'].map(quantity),
        'Share': [percent(share) + '%' for share in part['share']],
        'Optimizer bytes': part['optimizer_bytes'].map(quantity),
        'Train FLOPs': part['train_flops'].map(quantity),
        'Steps': part['steps'].map(quantity).mask(solved, 'exact'),
        'Reused stages': [
          f'{quantity(reused)} of {depth:.0f}'
          for reused, depth in zip(part['reused_stages'], part['num_stages'])
        ],
        'Train s': part['train_seconds'].map(quantity),
      }
    )
    if part['saved_bytes'].notna().any():
      shown['Saved bytes'] = part['saved_bytes'].map(quantity)
    if apart:
      shown['Eval s'] = part['eval_seconds'].map(quantity)
    features = []
    for seconds, how in zip(part['feature_seconds'], part['features']):
      features.append(quantity(seconds) + (f' ({how})' if how and seconds else ''))
    shown['Features s'] = features
    shown['Compile s'] = part['compile_seconds'].map(quantity)
    shown['Programs'] = part['compiled_programs'].map(quantity)
    shown['Search s'] = part['search_seconds'].map(quantity)
    note = (
      "Per run, mean over seeds; seconds are the run's share of its cohort's time. "
      + (
        'Train s: the training steps alone. Eval s: validation and test. '
        if apart
        else 'Train s: the training steps and the validation between them, which this folder does '
        'not tell apart. '
      )
      + 'Features s: the one pass of every example through frozen stages, or reading what an '
      'earlier one left (0 where neither was needed). Reused stages: those of the last phase that '
      'ran in that pass, not at every step. Compile s and Programs: what the cohort was the first '
      'to compile. Search: training of every run tried, all rates and seeds.'
      + (' What is solved exactly has no optimizer and no steps (–).' if solved.any() else '')
    )
    for row in saved[(saved['source'] == source) & (saved['target'] == target)].to_dict('records'):
      if row['passes'] > 0:
        note += (
          f' Reuse: in training, {row["num_runs"]} runs of all sizes and settings read kept '
          f'activations {quantity(row["passes"])} times instead of running frozen stages on an '
          f'example; these took {quantity(row["feature_seconds"])} s to compute.'
        )
    title = f'Cost at {per_class(results, largest, target=target)}, {arrow(source, target)}'
    made.append(Table(slug('cost', source, target), title, shown, frame, note))
  return made


def times(results: Results) -> list[Table]:
  """Where the time of the study went, a row for every start of it."""
  frame = pd.DataFrame(results.times)
  if not len(frame):
    return []
  parts = [name for name in frame.columns if name.endswith('_seconds') and name != 'wall_seconds']
  shown = pd.DataFrame(
    {
      'Start': [str(i + 1) for i in range(len(frame))],
      **{name.removesuffix('_seconds').capitalize(): frame[name].map(quantity) for name in parts},
    }
  )
  note = (
    'Seconds. Train: steps alone; eval: validation and test; feature: what frozen stages make of '
    'examples, computed or read.'
  )
  if 'wall_seconds' in frame:
    shown['Wall'] = frame['wall_seconds'].map(quantity)
    share = frame[parts].sum(axis=1).sum() / frame['wall_seconds'].sum()
    note += (
      f' The parts make {100 * share:.0f}% of the time by the clock.'
      if math.isfinite(share)
      else ''
    )
  return [Table('time', 'Where the time of the study went', shown, frame, note)]


def failed(results: Results) -> list[Table]:
  """The runs that cannot be used, and the chosen ones that are no better than guessing."""
  runs = results.runs
  tested = numbers.tested(results)
  guessing = set(tested.loc[numbers.at_chance(results, tested), 'id'])
  made = []
  part = runs[runs['status'] != 'ok']
  if len(part):
    shown = pd.DataFrame(
      {
        'Run': part['id'],
        'Status': part['status'],
        'Learning rate': part['learning_rate'].map('{:g}'.format),
        'Chosen': part['chosen'].map({True: 'yes', False: 'no'}),
      }
    )
    made.append(
      Table(
        'diverged', f'Runs that diverged or are not finite: {len(part)} of {len(runs)}', shown, part
      )
    )
  part = tested[tested['id'].isin(guessing)]
  if len(part):
    shown = pd.DataFrame(
      {
        'Run': part['id'],
        f'Test {metrics.ACCURACY.words}': [percent(value) + '%' for value in part['test_score']],
        'Guessing': [percent(1 / count) + '%' for count in part['num_classes']],
      }
    )
    made.append(
      Table(
        'chance',
        f'Chosen runs at chance: {len(part)} of {len(tested)}',
        shown,
        part,
        'No better than guessing beyond what drawing the test examples explains '
        f'({metrics.BALANCED.words} where it is known).',
      )
    )
  return made


def _by(results: Results, target: str) -> str:
  return f'by examples{results.each(target)}' if results.each(target) else 'by training examples'


def _by_pair(frame: pd.DataFrame, results: Results):
  for source, target in results.pairs:
    part = frame[(frame['source'] == source) & (frame['target'] == target)]
    if len(part):
      yield source, target, part


def _wide(part: pd.DataFrame, results: Results, show) -> pd.DataFrame:
  """Methods x shots of `show(row)`, '' where there is no such run."""
  cells = {(row['method'], row['shots']): show(row) for row in part.to_dict('records')}
  methods = [method for method in results.methods if method in set(part['method'])]
  sizes = in_order(part['shots'])
  target = part['target'].iloc[0] if 'target' in part else ''
  rows = []
  for method in methods:
    rows.append([method, *(cells.get((method, shots), '') for shots in sizes)])
  heads = [size(results, shots, target) for shots in sizes]
  return pd.DataFrame(rows, columns=['Method', *heads])


def _differing(metric: Metric) -> str:
  """What a difference is of: 'Points of test accuracy'."""
  if metric.share:
    return f'Points of test {metric.words}'
  less = ' (less is better: below 0 is an improvement)' if metric.direction < 0 else ''
  return f'Test {metric.words}{less}'


def _mean(row: Mapping, most: int, metric: Metric) -> str:
  mean = metric.written(row['mean'])
  if row['n'] > 1 and math.isnan(row['low']):
    return mean + ' alike' + (f' (n={row["n"]})' if row['n'] < most else '')
  return (
    mean
    + metric.half(row['low'], row['high'])
    + (f' (n={row["n"]})' if row['n'] < max(most, 2) else '')
  )


def _interquartile(metric: Metric, row: Mapping) -> str:
  shown = metric.written(row['iqm'])
  if row['n'] > numbers.FEW_PAIRS:  # a bootstrap of two seeds draws the same three values
    shown += f' {_interval(row["low"], row["high"], metric=metric)}'
  chance = row['probability_of_improvement']
  return shown if math.isnan(chance) else f'{shown} P={chance:.2f}'


def _pairs(row: Mapping) -> str:
  missing = row['num_missing']
  return f'{row["n"]} ({missing} unpaired)' if missing else str(row['n'])


def _multiplier(row: Mapping) -> str:
  if math.isnan(row['multiplier']):
    return '–'
  value = f'{ {">=": "≥ ", "<=": "≤ "}.get(row["bound"], "") }{row["multiplier"]:.2f}'
  low, high = row['low'], row['high']
  if math.isnan(low):
    return value
  return f'{value} [{low:.2f}, {"∞" if math.isinf(high) else f"{high:.2f}"}]'


def _interval(
  low: float, high: float, signed: bool = False, metric: Metric = metrics.ACCURACY
) -> str:
  if math.isnan(low):
    return '–'
  return f'[{metric.written(low, signed)}, {metric.written(high, signed)}]'


def _span(values: pd.Series) -> str:
  return str(values.min()) if values.min() == values.max() else f'{values.min()}–{values.max()}'
