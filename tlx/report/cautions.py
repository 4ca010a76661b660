"""What a reader must know before believing the numbers: what intervals leave out, what cannot be
used, what data and weights hold.
"""

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from tlx.report import levels, numbers, statistics
from tlx.report.folder import Results, base, in_order, load, read_subsets, target_names
from tlx.report.formats import percent, quantity


def intervals(results: Results, source: str, target: str) -> str:
  """What intervals over seeds do not hold: shared examples, the one source, the one test set."""
  runs = numbers.tested(results)
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  varied = levels.counts(runs)
  if not varied:
    return ''
  says = [f'Intervals are over {levels.listed([f"{name}s" for name in varied])} only.']
  shared = overlap(results, target)
  if any(share >= 0.05 for share in shared.values()):
    parts = []
    for shots, share in shared.items():
      size = f'{shots}{results.each(target)}' if shots else 'all'
      parts.append(f'{100 * share:.0f}% at {size}')
    says.append(
      f'The training sets of two seeds share {", ".join(parts)} of their examples, so seeds differ '
      'by less than new samples would.'
    )
  if 'fold' in varied:
    says.append(
      'Folds share training examples, so they differ by less than new data sets would: their '
      'variance counts as Nadeau and Bengio (2003) correct it.'
    )
  if 'source seed' in varied:
    if (runs['init'] == 'random').any():
      says.append('A random start has nothing of the source and is run once for all its seeds.')
  elif source and (runs['init'] == 'source').any():
    says.append('There is one source network, so nothing is said of others.')
  count = runs['test_count'].max() if 'test_count' in runs else math.nan
  if math.isfinite(count) and results.metrics[target].counted and 'fold' not in varied:
    best = runs.groupby(numbers.CELL)['test_score'].mean().max()
    low, high = statistics.wilson_interval(best, int(count))
    says.append(
      f'There is one test set of {count:,.0f} examples: at {percent(best)}%, drawing another one '
      f'alone would give {percent(low)} to {percent(high)} (95%). The option test_sampling adds '
      'that to the intervals.'
    )
  return ' '.join(says)


def overlap(results: Results, target: str) -> dict[int, float]:
  """{shots: the mean share of a training set that another seed's has too}, of two seeds or more."""
  wanted = set(results.runs.loc[results.runs['target'] == target, 'shots'])
  shares: dict[int, list[float]] = {}
  for name in target_names(results, target):
    subsets = read_subsets(results.workdir, name)
    for shots in in_order(wanted & subsets.keys()):
      pairs = list(itertools.combinations(subsets[shots].values(), 2))
      if pairs and all(one and other for one, other in pairs):
        shares.setdefault(shots, []).append(
          float(np.mean([len(one & other) / min(len(one), len(other)) for one, other in pairs]))
        )
  return {shots: float(np.mean(of_folds)) for shots, of_folds in shares.items()}


def validation(results: Results, source: str, target: str) -> str:
  """How many images chose the settings of training sets of what size; '' where it is not known."""
  runs = results.runs
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  if 'val_count' not in runs or not np.isfinite(runs[['val_count', 'num_train']]).all(axis=None):
    return ''
  counts = runs.groupby('shots')[['val_count', 'num_train']].max()
  counts = counts.loc[in_order(counts.index)].astype(int)
  if counts['val_count'].nunique() == 1:
    sizes = counts['num_train']
    count = counts['val_count'].iloc[0]
    what = (
      f'{sizes.min():,}' if sizes.min() == sizes.max() else f'{sizes.min():,} to {sizes.max():,}'
    )
    text = (
      f'{count:,} validation examples chose the settings and name the best methods, for training '
      f'sets of {what} examples.'
    )
  else:
    cases = ', '.join(
      f'{row["val_count"]:,} for {row["num_train"]:,}' for row in counts.to_dict('records')
    )
    text = f'Validation examples that chose the settings, by training examples: {cases}.'
  beyond = counts[counts['val_count'] > counts['num_train']]
  if len(beyond):
    text += (
      f' That is more than the {", ".join(f"{size:,}" for size in beyond["num_train"])} '
      'trained on: who has only so few to train on has no such validation part, and would choose '
      'worse.'
    )
  return text


def best_steps(results: Results, source: str, target: str) -> str:
  """How often the best step on validation is another than the last, and by how much; '' where runs
  end with their last.
  """
  runs = results.runs
  runs = runs[(runs['source'] == source) & (runs['target'] == target) & runs['chosen']]
  lines = []
  for column in runs['select'].unique() if len(runs) else ():
    if f'last_test_{column}' not in runs:
      continue
    own = runs[(runs['select'] == column) & runs[f'last_test_{column}'].notna()]
    gains = {split: own[f'{split}_{column}'] - own[f'last_{split}_{column}'] for split in _SPLITS}
    found = [results.found[name] for name in own['id']]
    differ = sum(one['kept_steps'] != [one['phases'][-1]['steps']] for one in found)
    if len(own):
      lines.append(
        f'{differ:,} of {len(own):,} chosen runs ended with other weights than their last step, '
        f'chosen on validation: {column} differs from the last by '
        f'{gains["val"].mean():+.4f} on validation, which chose them, and by '
        f'{gains["test"].mean():+.4f} on test (mean of all).'
      )
  return ' '.join(lines)


_SPLITS = ('val', 'test')


def merged(results: Results, source: str, target: str) -> list[str]:
  """Of each method whose runs are made of others', how many of these went in, at which scale, and
  whose the cost is.
  """
  runs = numbers.tested(results)
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  lines = []
  for method in results.methods:
    names = runs.loc[runs['method'] == method, 'id']
    told = [one for one in (results.found[name].get('merged') for name in names) if one]
    if not told:
      continue
    used, most = [len(one['used']) for one in told], max(len(one['runs']) for one in told)
    few = f'{np.mean(used):.1f} of {most} runs' if most > 1 else 'the run'
    scales = [one['scale'] for one in told]
    tried = max(len(one['tried']) for one in told)
    at = f', at a scale of {np.mean(scales):.2g} of {tried} tried' if tried > 1 else ''
    lines.append(
      f'{method} is made ({told[0]["name"]}) of {few} of {told[0]["of"]}{at} (means over what was '
      'chosen on validation); steps, FLOPs and seconds are those of all runs that it could take.'
    )
  return lines


@numbers.remembered
def unusable(results: Results) -> pd.DataFrame:
  """Per source, target, method and shots: why what the chosen runs learned cannot be used, as
  `reason`; sound cells are left out.

  A run that diverged or is not finite spoils its cell. At chance: `numbers.at_chance` for most
  runs, with the training loss where it is low, below half of ln K. Worse than guessing: the mean
  validation loss above ln K of K classes, which guessing has, while the training loss is low, or
  above twice ln K; and the share of right answers no more than half way from guessing to the best
  method of that size, since a sure network may be useful all the same. Where answers are not
  counted, nothing is known of guessing.
  """
  runs = numbers.tested(results)
  lines = numbers.lines(results)
  last = lines[np.isfinite(lines['loss'])].groupby('id')['loss'].last()
  runs = runs.assign(train_loss=runs['id'].map(last), guessing=numbers.at_chance(results, runs))
  best = (
    runs.groupby(numbers.CELL)['test_score'].mean().groupby(['source', 'target', 'shots']).max()
  )
  rows = []
  for (source, target, method, shots), group in numbers.groups(runs, results):
    guess = -math.log(numbers.chance(results, target))  # NaN where unknown: no comparison holds
    train, val = group['train_loss'].mean(), group['val_loss'].mean()
    fits = method not in results.solved and train < guess / 2
    words = (
      f'validation loss {quantity(val)}, training loss {quantity(train)}; guessing has '
      f'{quantity(guess)}'
    )
    poor = 2 * group['test_score'].mean() < best[source, target, shots] + math.exp(-guess)
    if (group['status'] != 'ok').any():
      count = int((group['status'] != 'ok').sum())
      reason = f'{count} of {len(group)} runs diverged or are not finite'
      rows.append((source, target, method, shots, reason))
    elif group['guessing'].mean() > 0.5:
      though = f', though its training loss is {quantity(train)}' if fits else ''
      reason = f'at chance ({percent(group["test_score"].mean())}%{though})'
      rows.append((source, target, method, shots, reason))
    elif (val > 2 * guess or (val > guess and fits)) and poor:
      rows.append((source, target, method, shots, f'worse than guessing by its loss ({words})'))
  return pd.DataFrame(rows, columns=[*numbers.CELL, 'reason'])


def of_run(workdir, name: str) -> str:
  """What the report says against what a run and its like learned, a sentence, or ''."""
  try:
    results = load(workdir)
    setting = results.runs.loc[results.runs['id'] == name, numbers.CELL].iloc[:1]
    # of the same size: nothing else is compared
    alike = results.runs.merge(setting[['source', 'target', 'shots']])
    found = unusable(results._replace(runs=alike)).merge(setting)
  except ValueError as error:
    return f'What its report says of it cannot be told: {error}'
  return ''.join(f'Its report says that it cannot be used: {why}.' for why in found['reason'])


def notes(results: Results) -> list[str]:
  """What was said of the data, what the weights' files left open, runs made by other versions."""
  found = []
  for pair, data in results.data.items():
    trained, _, target = pair.partition('/')
    place = f'{base(trained)} → {target}' if target else trained
    found += [f'{place}: {note}' for note in data.get('notes') or ()]
  found = list(dict.fromkeys(found))  # source seeds look at the same data
  for name, source in results.sources.items():
    found += [f'Source {name}: assumed: {sentence}' for sentence in source.get('assumed') or ()]
  return [*found, *versions(results)]


def versions(results: Results) -> list[str]:
  """A sentence for every set of versions but the last start's: what differed, and in which runs."""
  made: dict[tuple, list[str]] = {}
  for name in results.runs['id']:
    theirs = results.found[name].get('versions') or {}
    other = tuple(
      (what, str(results.versions[what]), str(value))
      for what, value in sorted(theirs.items())
      if what in results.versions and value != results.versions[what]
    )
    if other:
      made.setdefault(other, []).append(name)
  said = []
  for other, ids in made.items():
    differs = ', '.join(f'{what} {now} instead of {was}' for what, was, now in other)
    said.append(
      f'{len(ids)} of {len(results.runs)} runs were made by other versions than the last start of '
      f'the study: {differs}. Their numbers may differ for that alone: {some(ids)}.'
    )
  return said


def some(names: Iterable[str], most: int = 5) -> str:
  """The first names, and how many more there are."""
  found = list(names)
  return ', '.join(found[:most]) + (f' and {len(found) - most} more' if len(found) > most else '')
