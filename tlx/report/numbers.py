"""The study as tidy frames of numbers: what the tables, the figures and the sentences are all made from."""
import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from tlx.report import statistics
from tlx.report.folder import Results, in_order, phases_of, read_metrics

CELL = ['source', 'target', 'method', 'shots']


def tested(results: Results) -> pd.DataFrame:
  """The chosen runs that saw the test set."""
  return results.runs[results.runs['chosen'] & np.isfinite(results.runs['test_accuracy'])]


def scratch(results: Results) -> str:
  """The method transfer gain is measured against: the baseline if it starts at random, else the first that does, else ''."""
  random = set(results.runs.loc[results.runs['init'] == 'random', 'method'])
  return results.baseline if results.baseline in random else next((m for m in results.methods if m in random), '')


def per_class(results: Results, shots: int, target: str = '') -> float:
  """The examples of each class that `shots` stands for: for 0, all, their mean number; NaN where it is not known or not one for all targets."""
  if shots:
    return float(shots)
  found = set(results.all_shots.values()) if not target else {results.all_shots.get(target, math.nan)}
  return found.pop() if len(found) == 1 else math.nan


def means(results: Results) -> pd.DataFrame:
  """Per source, target, method and shots: mean test accuracy over seeds with Student-t and bootstrap intervals, and validation."""
  rows = []
  for cell, group in _groups(tested(results), results):
    t = statistics.mean_interval(group['test_accuracy'])
    boot = statistics.bootstrap_interval(group['test_accuracy'])
    rows.append((*cell, *t, boot.low, boot.high, group['val_accuracy'].mean()))
  return pd.DataFrame(rows, columns=[*CELL, 'mean', 'low', 'high', 'n', 'bootstrap_low', 'bootstrap_high', 'val_mean'])


def differences(results: Results, reference: str) -> pd.DataFrame:
  """Per source, target, method and shots: test accuracy minus that of `reference`, paired by seed.

  `holm_p` corrects the t-test over all methods and sizes of one source and target. Where a randomly started reference was run
  under another source only, those runs serve: they hold nothing of it.
  """
  runs, rows = tested(results), []
  reference_runs = _references(runs, reference)
  for source, target in results.pairs:
    for (_, _, method, shots), group in _groups(runs[(runs['source'] == source) & (runs['target'] == target)], results):
      if method != reference:
        pair = statistics.paired(_by_seed(group), _by_seed(reference_runs(source, target, shots)))
        if pair.n:
          rows.append((source, target, method, shots, *pair))
  frame = pd.DataFrame(rows, columns=[*CELL, *statistics.Paired._fields])
  frame['holm_p'] = frame.groupby(['source', 'target'])['t_p'].transform(statistics.holm)
  return frame


def gains(results: Results, reference: str) -> pd.DataFrame:
  """`differences` of the methods that start from the source."""
  starts = results.runs.loc[results.runs['init'] == 'source', CELL].drop_duplicates()
  return differences(results, reference).merge(starts, on=CELL)


def _references(runs: pd.DataFrame, reference: str) -> Callable[[str, str, int], pd.DataFrame]:
  """(source, target, shots) -> the runs of `reference` to compare with; those of another source only if they start at random."""
  found = dict(list(runs[runs['method'] == reference].groupby(['target', 'shots'])))

  def runs_for(source: str, target: str, shots: int) -> pd.DataFrame:
    part = found.get((target, shots), runs[:0])
    own = part[part['source'] == source]
    foreign = not len(own) and part['source'].nunique() == 1 and (part['init'] == 'random').all()
    return part if foreign else own
  return runs_for


def multipliers(results: Results, reference: str) -> pd.DataFrame:
  """Per method and shots: how many times the examples `reference` would need for the same mean test accuracy (D_E / D_F).

  `bound` is '>=' or '<=' where the reference's curve does not reach; empty without two sizes of the reference.
  """
  runs, rows = tested(results), []
  reference_runs = _references(runs, reference)
  for source, target in results.pairs:
    curve: list[tuple[float, float]] = []
    for size in in_order(runs.loc[runs['target'] == target, 'shots']):
      point = per_class(results, size, target), reference_runs(source, target, size)['test_accuracy'].mean()
      if np.isfinite(point).all() and (not curve or point[0] > curve[-1][0]):  # all may be as many as the largest size
        curve.append(point)
    for (_, _, method, shots), group in _groups(runs[(runs['source'] == source) & (runs['target'] == target)], results):
      if method != reference and len(curve) > 1:
        data, bound = statistics.effective_data(group['test_accuracy'].mean(), *zip(*curve))
        rows.append((source, target, method, shots, data, data / per_class(results, shots, target), bound))
  return pd.DataFrame(rows, columns=[*CELL, 'effective_shots', 'multiplier', 'bound'])


def speeds(results: Results, reference: str) -> pd.DataFrame:
  """Per method and shots: median steps and seconds until validation accuracy reaches the last mean value of `reference`.

  A run that never does counts as infinite; `reached` of `n` runs do. Steps are as fine as the evaluations were; methods that are
  solved exactly take none.
  """
  runs, rows = tested(results), []
  reference_runs = _references(runs, reference)
  lines = dict(list(read_metrics(results.workdir, runs['id']).groupby('id')))
  for (source, target, method, shots), group in _groups(runs, results):
    others = [lines[i]['val_accuracy'].iloc[-1] for i in reference_runs(source, target, shots)['id'] if i in lines]
    group = group[group['id'].isin(lines.keys())]
    others = [value for value in others if math.isfinite(value)]  # a diverged run has no last value
    if others and len(group) and method not in results.solved:
      threshold = float(np.mean(others))
      steps = np.array([statistics.first_reaching(threshold, lines[i]['step'], lines[i]['val_accuracy']) for i in group['id']])
      seconds = steps / group['steps'].to_numpy() * group['train_seconds'].to_numpy()
      rows.append((source, target, method, shots, threshold, float(np.median(steps)), float(np.median(seconds)),
                   int(np.isfinite(steps).sum()), len(group)))
  return pd.DataFrame(rows, columns=[*CELL, 'threshold', 'median_steps', 'median_seconds', 'reached', 'n'])


def rates(results: Results) -> pd.DataFrame:
  """Per method and shots: the chosen learning rate and weight decay, the settings tried, and whether the rate is at their edge.

  Of methods that are solved exactly, where the weight decay is the penalty and the rate means nothing, it is the penalty's edge.
  """
  rows = []
  for cell, group in _groups(results.runs, results):
    chosen = group[group['chosen']]
    if len(chosen):
      name = 'weight_decay' if cell[2] in results.solved else 'learning_rate'
      tried = sorted(group[name].unique())
      settings = len(group[['learning_rate', 'weight_decay']].drop_duplicates())
      rate, decay = chosen[['learning_rate', 'weight_decay']].iloc[0]
      edge = 'only one tried' if len(tried) == 1 else {tried[0]: 'lowest tried', tried[-1]: 'highest tried'}.get(chosen[name].iloc[0], '')
      rows.append((*cell, rate, decay, chosen['val_accuracy'].mean(), settings, group['weight_decay'].nunique(), tried[0], tried[-1], edge))
  return pd.DataFrame(rows, columns=[*CELL, 'learning_rate', 'weight_decay', 'val_mean', 'settings', 'decays', 'lowest', 'highest', 'edge'])


def costs(results: Results) -> pd.DataFrame:
  """Per method and shots: costs of one chosen run (mean over seeds), and `search_seconds`, those of every run tried for it.

  Parameters are counts, `share` a fraction of all parameters, bytes bytes, FLOPs those of the whole training, times seconds.
  """
  names = ['trainable_params', 'total_params', 'optimizer_bytes', 'train_flops', 'steps', 'train_seconds', 'feature_seconds',
           'compile_seconds', 'compiled_programs', 'peak_memory_bytes', 'reused_stages', 'num_stages']
  rows = []
  for cell, group in _groups(results.runs, results):
    mean = group[group['chosen']][names].mean()
    if len(group[group['chosen']]):
      rows.append((*cell, *mean, mean['trainable_params'] / mean['total_params'], group['train_seconds'].sum()))
  return pd.DataFrame(rows, columns=[*CELL, *names, 'share', 'search_seconds'])


def reuse(results: Results) -> pd.DataFrame:
  """Per source and target: the runs that began at kept activations, how often these stood in for a pass of an image, and their seconds.

  `passes` counts the examples of training steps; an exact solution looks at every example once. Where a method's phases differ in
  batch size the smallest counts, so there are at least so many.
  """
  runs = results.runs[results.runs['reused_steps'] > 0]
  batch = {name: min((phase.get('batch_size', 0) for phase in phases_of(results.config, name)), default=0) for name in results.methods}
  passes = (runs['reused_steps'] * runs['method'].map(batch).astype(float)).mask(runs['method'].isin(results.solved), runs['num_train'])
  frame = runs.assign(passes=passes).groupby(['source', 'target'], sort=False)
  return frame.agg(num_runs=('id', 'size'), passes=('passes', 'sum'), feature_seconds=('feature_seconds', 'sum')).reset_index()


def across_targets(results: Results, reference: str) -> pd.DataFrame:
  """Per source, method and shots over two targets or more: interquartile mean of test accuracy, P(better than `reference`).

  Over the seeds that every target has; methods that lack a target are left out.
  """
  runs, rows = tested(results), []
  for source in dict(results.pairs):
    targets = [target for s, target in results.pairs if s == source]
    scores = {key: group.pivot(index='seed', columns='target', values='test_accuracy').reindex(columns=targets).dropna()
              for key, group in runs[runs['source'] == source].groupby(['method', 'shots'])}
    for shots in in_order(runs['shots']):
      for method in results.methods:
        table, other = scores.get((method, shots)), scores.get((reference, shots))
        if len(targets) > 1 and table is not None and len(table):
          better = math.nan
          if method != reference and other is not None and len(other):
            better = statistics.probability_of_improvement(table.to_numpy(), other.to_numpy())
          rows.append((source, method, shots, *statistics.iqm_interval(table.to_numpy()), len(targets), better))
  columns = ['source', 'method', 'shots', 'iqm', 'low', 'high', 'n', 'num_targets', 'probability_of_improvement']
  return pd.DataFrame(rows, columns=columns)


def curves(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots and step: mean validation accuracy of the chosen runs with its Student-t interval.

  Methods that are solved exactly have no curve.
  """
  runs = tested(results)
  runs = runs[~runs['method'].isin(results.solved)]
  lines = read_metrics(results.workdir, runs['id']).merge(runs[['id', *CELL]], on='id')
  lines = lines[np.isfinite(lines['val_accuracy'])]
  rows = [(*key, *statistics.mean_interval(values)) for key, values in lines.groupby([*CELL, 'step'])['val_accuracy']]
  return pd.DataFrame(rows, columns=[*CELL, 'step', 'mean', 'low', 'high', 'n'])


def _groups(runs: pd.DataFrame, results: Results) -> list:
  """[(cell, its runs)] in the order of the config: pairs, then methods, then sizes."""
  order = {pair: i for i, pair in enumerate(results.pairs)}
  rank = {method: i for i, method in enumerate(results.methods)}
  return sorted(runs.groupby(CELL), key=lambda item: (order[item[0][:2]], rank[item[0][2]], item[0][3] or math.inf))


def _by_seed(runs: pd.DataFrame) -> dict[int, float]:
  """{seed: test accuracy}.

  Raises:
    ValueError: a seed stands twice.
  """
  if runs['seed'].duplicated().any():
    raise ValueError(f'Two chosen runs with one seed: {", ".join(runs["id"])}. A cell has one; remove the folder of the wrong one.')
  return dict(zip(runs['seed'], runs['test_accuracy']))
