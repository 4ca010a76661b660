"""The tables of a study, each as strings to show and as numbers to work with."""
import math

import pandas as pd

from tlx.report import layers, numbers
from tlx.report.folder import Results, by_size, in_order
from tlx.report.formats import Table, percent, probability, quantity, slug


def make(results: Results) -> list[Table]:
  """Every table the study has the runs for, in the order of the report."""
  return [*accuracy(results), *across(results), *differences(results), *multipliers(results), *speeds(results),
          *stages(results), *rates(results), *costs(results), *diverged(results)]


def arrow(source: str, target: str) -> str:
  """'mnist → digits'; the target alone where there is no source."""
  return f'{source} → {target}' if source else target


def size(results: Results, shots: int, target: str = '') -> str:
  """'5'; 'all (93)' for all examples, with their mean number a class, 'all' where it is not known or not one for all targets."""
  number = numbers.per_class(results, shots, target)
  return str(shots) if shots else 'all' if math.isnan(number) else f'all ({number:.0f})'


def per_class(results: Results, *shots: int, target: str = '') -> str:
  """'1, 5, all (93) per class'; 'all examples' where that is all there is to say."""
  text = ', '.join(size(results, number, target) for number in shots)
  return 'all examples' if text == 'all' else f'{text} per class'


def accuracy(results: Results) -> list[Table]:
  """Test accuracy of the chosen runs, methods x shots, one table a source and target."""
  frame = numbers.means(results)
  most = frame['n'].max() if len(frame) else 0
  made = []
  for source, target, part in _by_pair(frame, results):
    shown = _wide(part, results, lambda row: _mean(row, most))
    note = f'Mean ± half-width of the 95% Student-t interval over {most} seeds; n where fewer.' if most > 1 else 'One seed: no interval.'
    if ((part['shots'] == 0) & part['method'].isin(results.solved) & (part['n'] > 1)).any():
      note += ' An exact solution of all examples is the same for every seed: its ± 0.0 says nothing about chance.'
    title = f'Test accuracy in %, {arrow(source, target)}, by examples per class'
    made.append(Table(slug('accuracy', source, target), title, shown, part, note))
  return made


def across(results: Results) -> list[Table]:
  """Over several targets: the interquartile mean, and how often a method beats the baseline."""
  frame = numbers.across_targets(results, results.baseline)
  made = []
  for source, part in frame.groupby('source', sort=False):
    shown = _wide(part, results, lambda row: f'{percent(row["iqm"])} [{percent(row["low"])}, {percent(row["high"])}]'
                  + (f' P={row["probability_of_improvement"]:.2f}' if not math.isnan(row['probability_of_improvement']) else ''))
    note = ('Interquartile mean over targets and seeds with the stratified bootstrap 95% interval'
            + (f'; P: the chance that a run beats a run of {results.baseline}, ties half, mean over targets.' if results.baseline else '.'))
    title = f'Test accuracy in % over {part["num_targets"].iloc[0]} targets' + (f', source {source}' if source else '')
    made.append(Table(slug('across_targets', str(source)), title, shown, part, note))
  return made


def differences(results: Results) -> list[Table]:
  """Paired differences to the baseline, one table a source and target, sizes below each other."""
  made = []
  for source, target, part in _by_pair(numbers.differences(results, results.baseline), results):
    part = part.sort_values('shots', kind='stable', key=by_size)
    shown = pd.DataFrame({
        'Method': part['method'], 'Shots': [size(results, shots, target) for shots in part['shots']], 'Difference': [percent(d, signed=True) for d in part['difference']],
        '95% interval': [_range(row) for row in part.to_dict('records')],
        'Pairs': [f'{n} ({missing} unpaired)' if missing else str(n) for n, missing in zip(part['n'], part['num_missing'])],
        'Won/tied/lost': [f'{w}/{t}/{x}' for w, t, x in zip(part['wins'], part['ties'], part['losses'])],
        't-test p': part['t_p'].map(probability), 'Holm p': part['holm_p'].map(probability)})
    if part['wilcoxon_p'].notna().any():
      shown['Wilcoxon p'] = part['wilcoxon_p'].map(probability)
    note = (f'Points of test accuracy, same seed and subset; Holm over the {int(part["t_p"].notna().sum())} comparisons of this table. '
            '–: one pair says nothing about spread.')
    title = f'Difference to {results.baseline}, {arrow(source, target)}'
    made.append(Table(slug('differences', source, target), title, shown, part, note))
  return made


def multipliers(results: Results) -> list[Table]:
  """Effective data multipliers over the baseline, methods x shots."""
  made = []
  for source, target, part in _by_pair(numbers.multipliers(results, results.baseline), results):
    shown = _wide(part, results, lambda row: f'{ {">=": "≥ ", "<=": "≤ "}.get(row["bound"], "")}{row["multiplier"]:.2f}')
    note = (f'How many times the examples {results.baseline} needs for the same mean test accuracy; its curve is interpolated in log '
            'examples, never extrapolated (≥, ≤).')
    made.append(Table(slug('data', source, target), f'Effective data multiplier, {arrow(source, target)}', shown, part, note))
  return made


def speeds(results: Results) -> list[Table]:
  """Steps until the baseline's last validation accuracy, methods x shots."""
  made = []
  for source, target, part in _by_pair(numbers.speeds(results, results.baseline), results):
    shown = _wide(part, results, lambda row: f'{quantity(row["median_steps"])} ({row["reached"]}/{row["n"]})')
    note = (f'Median over seeds of the first evaluation at or above the last mean validation accuracy of {results.baseline} at that size '
            '(∞: half the runs never get there), and how many of the runs do.')
    made.append(Table(slug('speed', source, target), f'Steps to match {results.baseline}, {arrow(source, target)}', shown, part, note))
  return made


def stages(results: Results) -> list[Table]:
  """Test accuracy by the stage that the head follows, stages x shots, one table a source, target and family of methods."""
  made = []
  for source, target, frame in _by_pair(layers.stages(results), results):
    for family, part in frame.groupby('family', sort=False):
      sizes, most = in_order(part['shots']), part['n'].max()
      cells = {(row['depth'], row['shots']): _mean(row, most) + ' *' * row['best'] for row in part.to_dict('records')}
      rows = part.drop_duplicates('depth')
      shown = pd.DataFrame([[stage or 'last', str(depth), *(cells.get((depth, shots), '') for shots in sizes)]
                            for stage, depth in zip(rows['stage'], rows['depth'])],
                           columns=['Head after', 'Stages', *(size(results, shots, target) for shots in sizes)])
      note = f'{family}: mean ± half-width of the 95% Student-t interval over seeds; * is best by mean validation accuracy at its size.'
      title = f'Test accuracy in % by stage, {family}, {arrow(source, target)}, by examples per class'
      made.append(Table(slug('stages', source, target, str(family)), title, shown, part, note))
  return made


def rates(results: Results) -> list[Table]:
  """Chosen learning rates or penalties, methods x shots; a mark where the choice lies at the edge of what was tried."""
  frame = numbers.rates(results)
  marks = {'lowest tried': ' ↓', 'highest tried': ' ↑', 'only one tried': ''}

  def show(row):
    decay = f' (wd {row["weight_decay"]:g})' if row['weight_decay'] or row['decays'] > 1 else ''
    choice = f'penalty {row["weight_decay"]:g}' if row['method'] in results.solved else f'{row["learning_rate"]:g}{decay}'
    return choice + marks.get(row['edge'], '')

  made = []
  for source, target, part in _by_pair(frame, results):
    shown = _wide(part, results, show)
    shown.insert(1, 'Settings tried', [_span(part.loc[part['method'] == method, 'settings']) for method in shown['Method']])
    what = 'penalties' if results.solved.issuperset(part['method']) else 'learning rates'
    what += ' and penalties' if what == 'learning rates' and results.solved & set(part['method']) else ''
    at_edge = part['edge'].isin(['lowest tried', 'highest tried']).sum()
    note = (f'{at_edge} of {len(part)} choices lie at the edge of what was tried (↓ lowest, ↑ highest): the best may lie beyond it.'
            if at_edge else 'No choice lies at the edge of what was tried.' if (part['settings'] > 1).any() else 'One setting each: nothing was chosen.')
    made.append(Table(slug('rates', source, target), f'Chosen {what}, {arrow(source, target)}', shown, part, note))
  return made


def costs(results: Results) -> list[Table]:
  """What a chosen run costs at the largest size; the file of numbers has every size."""
  saved = numbers.reuse(results)
  made = []
  for source, target, frame in _by_pair(numbers.costs(results), results):
    largest = in_order(frame['shots'])[-1]
    part = frame[frame['shots'] == largest]
    solved = part['method'].isin(results.solved)
    shown = pd.DataFrame({
        'Method': part['method'], 'Trained params': part['trainable_params'].map(quantity),
        'Share': [percent(share) + '%' for share in part['share']], 'Optimizer bytes': part['optimizer_bytes'].map(quantity),
        'Train FLOPs': part['train_flops'].map(quantity).mask(solved, '–'), 'Steps': part['steps'].map(quantity).mask(solved, 'exact'),
        'Reused stages': [f'{quantity(reused)} of {depth:.0f}' for reused, depth in zip(part['reused_stages'], part['num_stages'])],
        'Train s': part['train_seconds'].map(quantity), 'Features s': part['feature_seconds'].map(quantity),
        'Compile s': part['compile_seconds'].map(quantity), 'Programs': part['compiled_programs'].map(quantity),
        'Search s': part['search_seconds'].map(quantity)})
    note = ("Per run, mean over seeds; seconds are the run's share of its cohort's time. Features s: the one pass of every example through frozen "
            'stages (0 where another cohort or study had made it). Reused stages: those of the last phase that ran in that pass, not at every step. '
            'Programs: what the cohort was the first to compile. Search: training of every run tried, all rates and seeds.')
    for row in saved[(saved['source'] == source) & (saved['target'] == target)].to_dict('records'):
      if row['passes'] > 0:
        note += (f' Reuse: in training, {row["num_runs"]} runs of all sizes and settings read kept activations {quantity(row["passes"])} times instead '
                 f'of running frozen stages on an example; these took {quantity(row["feature_seconds"])} s to compute.')
    title = f'Cost at {per_class(results, largest, target=target)}, {arrow(source, target)}'
    made.append(Table(slug('cost', source, target), title, shown, frame, note))
  return made


def diverged(results: Results) -> list[Table]:
  """The runs whose loss stopped being finite."""
  part = results.runs[results.runs['status'] != 'ok']
  if not len(part):
    return []
  shown = pd.DataFrame({'Run': part['id'], 'Status': part['status'], 'Learning rate': part['learning_rate'].map('{:g}'.format),
                        'Chosen': part['chosen'].map({True: 'yes', False: 'no'})})
  return [Table('diverged', f'Diverged runs: {len(part)} of {len(results.runs)}', shown, part)]


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
  return pd.DataFrame([[method, *(cells.get((method, size), '') for size in sizes)] for method in methods],
                      columns=['Method', *(size(results, shots, target) for shots in sizes)])


def _mean(row: dict, most: int) -> str:
  half = '' if math.isnan(row['low']) else f' ± {percent((row["high"] - row["low"]) / 2)}'
  return percent(row['mean']) + half + (f' (n={row["n"]})' if row['n'] < max(most, 2) else '')


def _range(row: dict) -> str:
  return '–' if math.isnan(row['low']) else f'[{percent(row["low"], True)}, {percent(row["high"], True)}]'


def _span(values: pd.Series) -> str:
  return str(values.min()) if values.min() == values.max() else f'{values.min()}–{values.max()}'
