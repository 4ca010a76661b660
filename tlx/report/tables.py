"""The tables of a study, each as strings to show and as numbers to work with."""
import math

import pandas as pd

from tlx.report import numbers
from tlx.report.folder import Results
from tlx.report.formats import Table, percent, probability, quantity, slug


def make(results: Results) -> list[Table]:
  """Every table the study has the runs for, in the order of the report."""
  return [*accuracy(results), *across(results), *differences(results), *multipliers(results), *speeds(results),
          *rates(results), *costs(results), *diverged(results)]


def arrow(source: str, target: str) -> str:
  """'mnist → digits'; the target alone where there is no source."""
  return f'{source} → {target}' if source else target


def accuracy(results: Results) -> list[Table]:
  """Test accuracy of the chosen runs, methods x shots, one table a source and target."""
  frame = numbers.means(results)
  most = frame['n'].max() if len(frame) else 0
  made = []
  for source, target, part in _by_pair(frame, results):
    shown = _wide(part, results, lambda row: _mean(row, most))
    note = f'Mean ± half-width of the 95% Student-t interval over {most} seeds; n where fewer.' if most > 1 else 'One seed: no interval.'
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
    part = part.sort_values('shots', kind='stable')
    shown = pd.DataFrame({
        'Method': part['method'], 'Shots': part['shots'], 'Difference': [percent(d, signed=True) for d in part['difference']],
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


def rates(results: Results) -> list[Table]:
  """Chosen learning rates, methods x shots; a mark where the choice lies at the edge of what was tried."""
  frame = numbers.rates(results)
  decays = frame['weight_decay'].nunique() > 1
  marks = {'lowest tried': ' ↓', 'highest tried': ' ↑', 'only one tried': ''}
  made = []
  for source, target, part in _by_pair(frame, results):
    def show(row):
      return f'{row["learning_rate"]:g}' + (f' (wd {row["weight_decay"]:g})' if decays else '') + marks.get(row['edge'], '')
    shown = _wide(part, results, show)
    shown.insert(1, 'Settings tried', [_span(part.loc[part['method'] == method, 'settings']) for method in shown['Method']])
    at_edge = part['edge'].isin(['lowest tried', 'highest tried']).sum()
    note = (f'{at_edge} of {len(part)} choices lie at the edge of the rates tried (↓ lowest, ↑ highest): the best rate may lie beyond it.'
            if at_edge else 'No choice lies at the edge of the rates tried.' if (part['settings'] > 1).any() else 'One setting each: nothing was chosen.')
    made.append(Table(slug('rates', source, target), f'Chosen learning rates, {arrow(source, target)}', shown, part, note))
  return made


def costs(results: Results) -> list[Table]:
  """What a chosen run costs at the largest size; the file of numbers has every size."""
  made = []
  for source, target, frame in _by_pair(numbers.costs(results), results):
    part = frame[frame['shots'] == frame['shots'].max()]
    shown = pd.DataFrame({
        'Method': part['method'], 'Trained params': part['trainable_params'].map(quantity),
        'Share': [percent(share) + '%' for share in part['share']], 'Optimizer bytes': part['optimizer_bytes'].map(quantity),
        'Train FLOPs': part['train_flops'].map(quantity), 'Steps': part['steps'].map(quantity),
        'Train s': part['train_seconds'].map(quantity), 'Compile s': part['compile_seconds'].map(quantity),
        'Search s': part['search_seconds'].map(quantity)})
    note = ("Per run, mean over seeds; seconds are the run's share of its cohort's time. Search: training of every run tried, "
            'all rates and seeds.')
    title = f'Cost at {part["shots"].max()} examples per class, {arrow(source, target)}'
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
  sizes = sorted(part['shots'].unique())
  return pd.DataFrame([[method, *(cells.get((method, size), '') for size in sizes)] for method in methods],
                      columns=['Method', *map(str, sizes)])


def _mean(row: dict, most: int) -> str:
  half = '' if math.isnan(row['low']) else f' ± {percent((row["high"] - row["low"]) / 2)}'
  return percent(row['mean']) + half + (f' (n={row["n"]})' if row['n'] < max(most, 2) else '')


def _range(row: dict) -> str:
  return '–' if math.isnan(row['low']) else f'[{percent(row["low"], True)}, {percent(row["high"], True)}]'


def _span(values: pd.Series) -> str:
  return str(values.min()) if values.min() == values.max() else f'{values.min()}–{values.max()}'
