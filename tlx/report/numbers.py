"""The study as tidy frames of numbers, which tables, figures and sentences are made from."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from tlx.report import levels, metrics, statistics
from tlx.report.folder import COST, Results, in_order, phases_of, read_curves, scored

CELL = ['source', 'target', 'method', 'shots']
DRAWS = 2000  # of seeds, for the interval of effective data
FEW_PAIRS = 2  # whose spread is a single difference, and too little known to call anything shown


def mean(scores: Iterable[float]) -> float:
  """Their mean without its last digits, which say in what order they were summed: by it methods are
  ranked, and what is equal has to tie.

  >>> mean([0.7] * 3) == mean([0.7])
  True
  """
  return round(float(pd.Series(list(scores), dtype=float).mean()), 12)


def scratch(results: Results) -> str:
  """The method transfer gain is measured against: the baseline if it starts at random, else the
  first that does, else ''.
  """
  random = set(results.runs.loc[results.runs['init'] == 'random', 'method'])
  return (
    results.baseline
    if results.baseline in random
    else next((m for m in results.methods if m in random), '')
  )


def per_class(results: Results, shots: int, target: str = '') -> float:
  """The examples of each class that `shots` stands for: for 0, all, their mean number; NaN where it
  is not known or not one for all targets.
  """
  if shots:
    return float(shots)
  found = (
    set(results.all_shots.values()) if not target else {results.all_shots.get(target, math.nan)}
  )
  return found.pop() if len(found) == 1 else math.nan


def remembered(function: Callable) -> Callable:
  """`function(results, ...)`, found once for the results that were last asked about, since tables,
  figures and sentences ask for the same; what is returned is a copy.
  """
  known: list[tuple[Results, tuple, Any]] = []

  @functools.wraps(function)
  def found(results: Results, *rest: Any) -> Any:
    for before, arguments, answer in known:
      if before is results and arguments == rest:
        return answer.copy()
    if known and known[0][0] is not results:
      known.clear()
    known.append((results, rest, function(results, *rest)))
    return known[-1][-1].copy()

  return found


@remembered
def tested(results: Results) -> pd.DataFrame:
  """The chosen runs that saw the test set, with `val_score` and `test_score`: the columns that they
  were chosen by.
  """
  runs = scored(results.runs)
  return runs[runs['chosen'] & np.isfinite(runs['test_score'])]


@remembered
def lines(results: Results) -> pd.DataFrame:
  """`folder.read_curves` of the chosen runs that saw the test set."""
  return read_curves(results.workdir, tested(results))


@remembered
def means(results: Results) -> pd.DataFrame:
  """Per source, target, method and shots: mean test score over seeds with Student-t and
  bootstrap intervals, and validation.

  Over source seeds and folds too, where there are any (`levels.interval`); then there is no
  bootstrap interval. `n` counts results: runs that depend on no seed are copies of one.
  """
  rows = []
  for cell, group in groups(tested(results), results):
    validation = mean(group['val_score'])  # of copies of one run too, which others may choose
    group = once(group)
    t = levels.interval(group, 'test_score')
    boot = statistics.Interval(t.mean, math.nan, math.nan, t.n)  # of a single factor only
    if not levels.are_crossed(group):
      boot = statistics.bootstrap_interval(group['test_score'])
    rows.append((*cell, *t, boot.low, boot.high, validation))
  return pd.DataFrame(
    rows, columns=[*CELL, 'mean', 'low', 'high', 'n', 'bootstrap_low', 'bootstrap_high', 'val_mean']
  )


def rising(results: Results, frame: pd.DataFrame, column: str) -> pd.Series:
  """A column of scores so that more is better: negative where the target's metric wants less."""
  direction = [results.metrics[target].direction for target in frame['target']]
  return frame[column] * np.asarray(direction, float)


def once(runs: pd.DataFrame) -> pd.DataFrame:
  """The runs of a cell as results: the first of them alone where no run depends on its seed."""
  return levels.once(runs)


def chance(results: Results, target: str) -> float:
  """What guessing has, 1 / the number of classes where answers are counted; NaN where that is not
  known.
  """
  counted = results.metrics[target].counted
  number = results.runs.loc[results.runs['target'] == target, 'num_classes'].max()
  return 1 / number if counted else math.nan


def at_chance(results: Results, runs: pd.DataFrame) -> pd.Series:
  """Which runs are no better on the test set than guessing, given how its examples were drawn.

  The mean recall of the classes says so where it is known (one class predicted everywhere is
  guessing, however common the class), else the share of right answers; the limit is 1/K + 1.96
  sqrt((1/K)(1 - 1/K) / N) for K classes and N examples. None where answers are not counted so.
  """
  counted = np.asarray([results.metrics[target].counted for target in runs['target']], bool)
  if not counted.any():
    return pd.Series(counted, runs.index)
  share = 1 / runs['num_classes']
  limit = share + 1.96 * np.sqrt(share * (1 - share) / runs['test_count'])
  balanced = runs[f'test_{metrics.BALANCED.column}']
  return counted & (balanced.fillna(runs['test_score']) <= limit)


@remembered
def differences(results: Results, reference: str) -> pd.DataFrame:
  """Per source, target, method and shots: test score minus that of `reference`, paired by seed.

  `wins` counts the seeds where it is the better one. Runs that depend on no seed stand beside every
  seed of the other method, and count once if both are such. `holm_p` corrects the t-test over all
  methods and sizes of one source and target; `verdict` is 'higher' or 'lower', as the difference
  is, where the interval excludes 0 and `holm_p` is below 0.05, 'not shown' where one of them is
  not or there are two pairs alone, '' where nothing could be tested. One network made of all seeds
  is one draw, which says nothing of others: there is neither an interval nor a test. Where a
  randomly started reference was run under another source only, those runs serve: they hold nothing
  of it.
  """
  runs, rows = tested(results), []
  reference_runs = references(runs, reference)
  for source, target in results.pairs:
    part = runs[(runs['source'] == source) & (runs['target'] == target)]
    for (_, _, method, shots), group in groups(part, results):
      if method != reference:
        pair = levels.paired(group, reference_runs(source, target, shots), _scores)
        if results.metrics[target].direction < 0:
          pair = pair._replace(wins=pair.losses, losses=pair.wins)
        if any(_is_of_all_seeds(results, one) for one in (method, reference)):
          pair = pair._replace(low=math.nan, high=math.nan, t_p=math.nan, wilcoxon_p=math.nan)
        if pair.n:
          rows.append((source, target, method, shots, *pair))
  frame = pd.DataFrame(rows, columns=[*CELL, *statistics.Paired._fields])
  frame['holm_p'] = frame.groupby(['source', 'target'])['t_p'].transform(statistics.holm)
  frame['verdict'] = [_verdict(row) for row in frame.to_dict('records')]
  return frame


def _is_of_all_seeds(results: Results, method: str) -> bool:
  """Whether all runs of a method are copies of one network that was made of every seed's."""
  merge = results.config.get('methods', {}).get(method, {}).get('merge') or {}
  return merge.get('over') == 'seeds' and not levels.are_crossed(results.runs)


def _verdict(row: Mapping[str, float]) -> str:
  if math.isnan(row['holm_p']):
    return ''
  few = row['n'] <= FEW_PAIRS
  if few or row['holm_p'] >= 0.05 or row['low'] <= 0 <= row['high']:
    return 'not shown'
  return 'higher' if row['low'] > 0 else 'lower'


def gains(results: Results, reference: str) -> pd.DataFrame:
  """`differences` of the methods that start from the source."""
  starts = results.runs.loc[results.runs['init'] == 'source', CELL].drop_duplicates()
  return differences(results, reference).merge(starts, on=CELL)


def references(runs: pd.DataFrame, reference: str) -> Callable[[str, str, int], pd.DataFrame]:
  """(source, target, shots) -> the runs of `reference` to compare with; those of another source
  only if they start at random.
  """
  found = dict(list(runs[runs['method'] == reference].groupby(['target', 'shots'])))

  def runs_for(source: str, target: str, shots: int) -> pd.DataFrame:
    part = found.get((target, shots), runs[:0])
    own = part[part['source'] == source]
    foreign = not len(own) and part['source'].nunique() == 1 and (part['init'] == 'random').all()
    return part if foreign else own

  return runs_for


def multipliers(results: Results, reference: str) -> pd.DataFrame:
  """Per method and shots: how many times the examples `reference` needs for as much (D_E / D_F).

  `bound` is '>=' or '<=' where the reference's curve does not reach; empty without two sizes of the
  reference. `low` and `high`: 95% of DRAWS paired draws of the seeds (of source seeds and folds
  too, where they vary; Owen 2007), each for the method and for the whole curve; 0 and infinity
  where the curve does not reach, NaN where none of these varies.
  """
  runs, rows = tested(results), []
  reference_runs = references(runs, reference)
  for source, target in results.pairs:
    direction = results.metrics[target].direction
    curve: list[tuple[float, float]] = []
    of_curve = []
    for size in in_order(runs.loc[runs['target'] == target, 'shots']):
      number = per_class(results, size, target)
      of_size = reference_runs(source, target, size)
      score = direction * of_size['test_score'].mean()
      grows = not curve or number > curve[-1][0]  # all may be as many as the largest size
      if np.isfinite([number, score]).all() and grows:
        curve.append((number, score))
        of_curve.append(of_size)
    part = runs[(runs['source'] == source) & (runs['target'] == target)]
    for (_, _, method, shots), group in groups(part, results):
      if method != reference and len(curve) > 1:
        data, bound = statistics.effective_data(
          direction * group['test_score'].mean(), *zip(*curve)
        )
        own = per_class(results, shots, target)
        ends = math.nan, math.nan
        if any(group[factor].nunique() > 1 for factor in levels.FACTORS):
          draws = direction * _drawn_means([group, *of_curve])
          sizes = [number for number, _ in curve]
          ends = statistics.effective_data_interval(draws[:, 0], sizes, draws[:, 1:])
        about = (source, target, method, shots)
        rows.append((*about, data, data / own, bound, *(end / own for end in ends)))
  columns = [*CELL, 'effective_shots', 'multiplier', 'bound', 'low', 'high']
  return pd.DataFrame(rows, columns=columns)


def _drawn_means(parts: list[pd.DataFrame]) -> np.ndarray:
  """[DRAWS, parts]: mean test scores over seeds, source seeds and folds that are drawn again with
  replacement, the same in every part that depends on them (`levels.factors`); NaN where such a part
  has no run of those drawn.
  """
  random = np.random.default_rng(0)
  weights = [np.ones((DRAWS, len(part))) for part in parts]
  for factor in levels.FACTORS:
    known = np.unique(pd.concat([part[factor] for part in parts]).dropna())
    if len(known) < 2:
      continue
    counts = random.multinomial(len(known), np.full(len(known), 1 / len(known)), size=DRAWS)
    for part, weight in zip(parts, weights):
      if factor in levels.factors(part):
        there = part[factor].notna().to_numpy()
        weight[:, there] *= counts[:, np.searchsorted(known, part[factor][there])]
  with np.errstate(invalid='ignore'):
    means = [w @ part['test_score'].to_numpy() / w.sum(1) for part, w in zip(parts, weights)]
  return np.stack(means, 1)


def speeds(results: Results, reference: str) -> pd.DataFrame:
  """Per method and shots: median steps and seconds to `reference`'s last validation score.

  Methods are evaluated at steps of their own, and who is looked at more often passes a threshold
  sooner by luck alone. So all curves of a source, target and size are read at the same steps, those
  of the method that was evaluated least often, and at their own last; they are straight between.
  They begin at chance at step 0; of a score without one at the first of these steps, at which what
  is reached before counts. A run that never gets there counts as infinite; `reached` of `n` runs
  do.
  Methods that are solved exactly or made of others' weights take no steps, and from a single
  evaluation nothing is read.

  `median_seconds` are those of training steps, phase by phase, and of what frozen stages computed
  before them. They are NaN where a folder of an earlier version does not tell them by phase.
  """
  runs, rows = tested(results), []
  reference_runs = references(runs, reference)
  curve_of = {
    name: part[['step', 'val_score']].to_numpy() for name, part in lines(results).groupby('id')
  }
  own = [name in curve_of and _steps_of_its_own(results, name) for name in runs['id']]
  runs = runs[np.asarray(own, bool)]
  for (source, target, method, shots), group in groups(runs, results):
    beside = reference_runs(source, target, shots)
    others = [curve_of[i][-1, 1] for i in beside['id'] if i in curve_of]
    others = [value for value in others if math.isfinite(value)]  # a diverged run has no last value
    if others:
      threshold = float(np.mean(others))
      same = runs[
        (runs['target'] == target) & (runs['shots'] == shots) & (runs['source'] == source)
      ]
      also = [name for name in beside['id'] if _steps_of_its_own(results, name)]
      common = _least_often([*same['id'], *also], curve_of)
      if len(common) < 2:
        continue
      begin = chance(results, target)
      less = results.metrics[target].direction < 0
      steps = np.array(
        [_steps_to(threshold, curve_of[i], common, begin, less) for i in group['id']]
      )
      seconds = [_seconds_to(results, name, step) for name, step in zip(group['id'], steps)]
      rows.append(
        (
          source,
          target,
          method,
          shots,
          threshold,
          float(np.median(steps)),
          float(np.median(seconds)),
          int(np.isfinite(steps).sum()),
          len(group),
        )
      )
  return pd.DataFrame(
    rows, columns=[*CELL, 'threshold', 'median_steps', 'median_seconds', 'reached', 'n']
  )


def steps_to(results: Results, runs: pd.DataFrame, threshold: float) -> pd.Series:
  """The step at which the validation curve of each of `runs` first reaches a score, read as in
  `speeds` but each at its own evaluations. A run that never gets there counts all its steps, which
  is less than it would take; NaN where there is no curve.
  """
  lines = dict(list(read_curves(results.workdir, runs).groupby('id')))

  def of_run(name: str, target: str) -> float:
    if name not in lines:
      return math.nan
    line = lines[name][['step', 'val_score']].to_numpy()
    less = results.metrics[target].direction < 0
    step = _steps_to(threshold, line, line[:, 0], chance(results, target), less)
    return min(step, float(line[-1, 0]))

  found = [of_run(name, target) for name, target in zip(runs['id'], runs['target'])]
  return pd.Series(found, runs.index, dtype=float)


def _steps_of_its_own(results: Results, name: str) -> bool:
  """Whether a run took steps of a gradient, and was not made of others."""
  found = results.found[name]
  solved = found['cell']['method'] in results.solved
  return not solved and not found.get('merged') and found['cost']['steps'] > 0


def _seconds_to(results: Results, name: str, step: float) -> float:
  """The seconds of a run's training to a step; NaN where no phase says what its steps cost."""
  phases = results.found[name]['phases']
  features = results.found[name]['cost'].get('feature_seconds')
  if any(phase.get('train_seconds') is None for phase in phases):
    return math.nan
  ends = np.cumsum([0, *(phase['steps'] for phase in phases)])
  seconds = np.cumsum([0.0, *(phase['train_seconds'] for phase in phases)])
  return float(np.interp(step, ends, seconds, right=math.inf) + (features or 0.0))


def _least_often(ids, lines: Mapping[str, np.ndarray]) -> np.ndarray:
  """The steps at which that run was evaluated which was evaluated least often, of those that went
  furthest if there are several; of runs that went to their end, none if no run did.
  """
  found = [lines[name] for name in ids if name in lines]
  found = [line[:, 0] for line in found if math.isfinite(line[-1, 1])]
  return min(found, key=lambda steps: (len(steps), -steps[-1]), default=np.empty(0))


def _steps_to(
  threshold: float, line: np.ndarray, common: np.ndarray, begin: float, less: bool
) -> float:
  """The step at which a run's curve [evaluations, (step, score)], read at the `common` steps, first
  reaches the threshold, from above where `less` is better.
  """
  line = line[np.isfinite(line[:, 1])]
  if not len(line):
    return math.inf
  last = line[-1, 0]
  if math.isfinite(begin):
    first, line = 0.0, np.concatenate([[[0.0, begin]], line])
  else:
    first = min(max(line[0, 0], common[0]), last)
  steps = np.unique([first, *common[(common > first) & (common < last)], last])
  sign = -1.0 if less else 1.0
  scores = sign * np.interp(steps, line[:, 0], line[:, 1])
  return statistics.first_reaching(sign * threshold, steps.tolist(), scores.tolist())


@remembered
def rates(results: Results) -> pd.DataFrame:
  """Per method and shots, source seed and fold: chosen learning rate and weight decay, settings
  tried, those at an edge.

  A method whose phases all fix their learning rate has the first of these as `learning_rate` and
  all of them in `fixed`; its runs at several rates of the grid are one setting. Methods that are
  solved exactly have a penalty, their weight decay, and no rate (NaN). `edge` and `decay_edge` are
  'lowest tried', 'highest tried', 'only one tried', 'of two' (of two values each is at an edge) or
  ''. A
  weight decay of 0 is no edge: nothing lies below.
  """
  rows = []
  for cell, level, group in _choices(results):
    chosen = group[group['chosen']]
    if len(chosen):
      fixed = fixed_rates(results, cell[2])
      own = group.assign(
        learning_rate=math.nan
        if cell[2] in results.solved
        else fixed[0]
        if fixed
        else group['learning_rate']
      )
      settings = len(own[['learning_rate', 'weight_decay']].drop_duplicates())
      rate, decay = own.loc[chosen.index[0], ['learning_rate', 'weight_decay']].astype(float)
      tried, decays = (
        sorted(own[name].dropna().unique()) for name in ('learning_rate', 'weight_decay')
      )
      decay_edge = _edge(decay, decays)
      decay_edge = '' if decay == 0 and decay_edge in ('lowest tried', 'of two') else decay_edge
      rows.append(
        (
          *cell,
          *level,
          rate,
          decay,
          chosen['val_score'].mean(),
          settings,
          len(decays),
          min(tried, default=math.nan),
          max(tried, default=math.nan),
          decays[0],
          decays[-1],
          _edge(rate, tried),
          decay_edge,
          ' then '.join(f'{r:g}' for r in fixed),
        )
      )
  return pd.DataFrame(
    rows,
    columns=[
      *CELL,
      'source_seed',
      'fold',
      'learning_rate',
      'weight_decay',
      'val_mean',
      'settings',
      'decays',
      'lowest',
      'highest',
      'lowest_decay',
      'highest_decay',
      'edge',
      'decay_edge',
      'fixed',
    ],
  )


def _choices(results: Results) -> list[tuple[tuple, tuple, pd.DataFrame]]:
  """[(cell, (source seed, fold), the runs that a setting was chosen from for them)]."""
  found = []
  for cell, group in groups(scored(results.runs), results):
    of_levels = group.groupby(['source_seed', 'fold'], dropna=False)
    found += [(cell, level, runs) for level, runs in of_levels]
  return found


def fixed_rates(results: Results, method: str) -> list[float]:
  """The learning rates of a method whose phases all fix theirs, without repetition; empty where the
  grid's is taken anywhere.
  """
  own = [
    phase.get('learning_rate') or 0.0
    for phase in phases_of(results.config, method)
    if phase.get('solver', 'sgd') == 'sgd'
  ]
  return list(dict.fromkeys(own)) if own and all(own) else []


def _edge(value: float, tried: list[float]) -> str:
  if len(tried) < 2:
    return 'only one tried'
  ends = {tried[0]: 'lowest tried', tried[-1]: 'highest tried'}
  return 'of two' if len(tried) == 2 else ends.get(value, '')


@remembered
def costs(results: Results) -> pd.DataFrame:
  """Per method and shots: costs of one chosen run (mean over seeds), and `search_seconds`, the
  training of every run tried for it.

  Parameters are counts, `share` a fraction of all parameters, bytes bytes, FLOPs those of the
  training steps, times seconds; `optimizer_bytes`, `train_flops` and `steps` of what is solved
  exactly are NaN: it has no optimizer. `features` says whether what frozen stages make of the
  images was computed or read, or both over the seeds.
  """
  names = [*COST, 'reused_stages', 'num_stages']
  rows = []
  for cell, group in groups(results.runs, results):
    chosen = group[group['chosen']]
    if len(chosen):
      mean = chosen[names].mean()
      if cell[2] in results.solved:
        mean[['optimizer_bytes', 'train_flops', 'steps']] = math.nan
      features = ' and '.join(sorted({how for how in chosen['features'] if how}))
      rows.append(
        (
          *cell,
          *mean,
          mean['trainable_params'] / mean['total_params'],
          (once(group) if _is_of_all_seeds(results, cell[2]) else group)['train_seconds'].sum(),
          features,
        )
      )
  return pd.DataFrame(rows, columns=[*CELL, *names, 'share', 'search_seconds', 'features'])


def reuse(results: Results) -> pd.DataFrame:
  """Per source and target: the runs that began at kept activations, how often these stood in for a
  pass of an image, and their seconds.

  `passes` counts the examples of training steps; an exact solution looks at every example once.
  Where a method's phases differ in batch size the smallest counts, so there are at least so many.
  """
  runs = results.runs[results.runs['reused_steps'] > 0]
  merged = [bool(results.found[name].get('merged')) for name in runs['id']]  # others' steps
  runs = runs[~np.asarray(merged, bool)]
  batch = {}
  for name in results.methods:
    sizes = [phase.get('batch_size', 0) for phase in phases_of(results.config, name)]
    batch[name] = min(sizes, default=0)
  passes = runs['reused_steps'] * runs['method'].map(batch).astype(float)
  passes = passes.mask(runs['method'].isin(results.solved), runs['num_train'])
  frame = runs.assign(passes=passes).groupby(['source', 'target'], sort=False)
  return frame.agg(
    num_runs=('id', 'size'), passes=('passes', 'sum'), feature_seconds=('feature_seconds', 'sum')
  ).reset_index()


def across_targets(results: Results, reference: str) -> pd.DataFrame:
  """Per source, method and shots over two targets or more: interquartile mean of test scores,
  P(better than `reference`).

  Over the seeds that every target has, for each the mean over source seeds and folds; methods that
  lack a target are left out, and so are sources whose targets are scored by different columns.
  """
  runs, rows = tested(results), []
  for source in dict(results.pairs):
    targets = [target for s, target in results.pairs if s == source]
    if len(targets) < 2:
      continue
    scores = {
      key: group.pivot_table('test_score', index='seed', columns='target')  # mean over levels
      .reindex(columns=targets)
      .dropna()
      for key, group in runs[runs['source'] == source].groupby(['method', 'shots'])
    }
    metric = metrics.one(results.metrics[target] for target in targets)
    for shots in in_order(runs['shots']) if metric else ():
      for method in results.methods:
        table, other = scores.get((method, shots)), scores.get((reference, shots))
        if table is not None and len(table):
          better = math.nan
          if method != reference and other is not None and len(other):
            sign = metric.direction if metric else 1
            better = statistics.probability_of_improvement(
              sign * table.to_numpy(), sign * other.to_numpy()
            )
          rows.append(
            (
              source,
              method,
              shots,
              *statistics.iqm_interval(table.to_numpy()),
              len(targets),
              better,
            )
          )
  columns = [
    'source',
    'method',
    'shots',
    'iqm',
    'low',
    'high',
    'n',
    'num_targets',
    'probability_of_improvement',
  ]
  return pd.DataFrame(rows, columns=columns)


def curves(results: Results) -> pd.DataFrame:
  """Per source, target, method, shots, step: mean validation score with its Student-t interval.

  Methods that are solved exactly have no curve.
  """
  runs = tested(results)
  runs = runs[~runs['method'].isin(results.solved)]
  told = ['id', *CELL, 'init', 'deterministic', *levels.FACTORS, 'folds']
  of_runs = lines(results).merge(runs[told], on='id')
  of_runs = of_runs[np.isfinite(of_runs['val_score'])]
  crossed, rows = levels.are_crossed(runs), []
  for key, of_step in of_runs.groupby([*CELL, 'step']):
    if crossed:
      interval = levels.interval(of_step, 'val_score')
    else:  # many steps, and this is quick
      interval = statistics.mean_interval(of_step['val_score'])
    rows.append((*key, *interval))
  return pd.DataFrame(rows, columns=[*CELL, 'step', 'mean', 'low', 'high', 'n'])


def groups(runs: pd.DataFrame, results: Results) -> list:
  """[(cell, its runs)] in the order of the config: pairs, then methods, then sizes."""
  order = {pair: i for i, pair in enumerate(results.pairs)}
  rank = {method: i for i, method in enumerate(results.methods)}
  return sorted(
    runs.groupby(CELL),
    key=lambda item: (order[item[0][:2]], rank[item[0][2]], item[0][3] or math.inf),
  )


def by_validation(results: Results, runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
  """[(method, its runs)] of one source, target and size, the best mean validation score first."""
  found = [(cell[2], group) for cell, group in groups(runs, results)]
  return sorted(found, key=lambda item: -mean(rising(results, item[1], 'val_score')))


def _scores(runs: pd.DataFrame) -> list[statistics.Score]:
  """Test scores, as fractions of counts where they are such and these are known."""
  if not (runs['select'] == metrics.SELECT[0]).any():
    return runs['test_score'].tolist()
  scores: list[statistics.Score] = []
  told = runs[['test_score', 'select', 'test_correct', 'test_count']]
  for score, select, correct, count in told.itertuples(index=False):
    if select == metrics.SELECT[0] and not math.isnan(correct):
      score = Fraction(int(correct), int(count))
    scores.append(score)
  return scores
