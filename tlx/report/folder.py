"""Reading the folder a study leaves (docs/results.md), finished or not."""

import hashlib
import io
import itertools
import json
import math
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tlx.report import metrics
from tlx.report.metrics import Metric

_CELL = ('source', 'target', 'method', 'shots', 'seed', 'learning_rate', 'weight_decay')
COST = (
  'trainable_params',
  'total_params',
  'saved_bytes',
  'optimizer_bytes',
  'train_flops',
  'steps',
  'train_seconds',
  'eval_seconds',
  'feature_seconds',
  'compile_seconds',
  'compiled_programs',
  'peak_memory_bytes',
)
# of the costs: folders of earlier versions lack them
_NEW = ('saved_bytes', 'eval_seconds', 'feature_seconds', 'compiled_programs')
_LEVELS = ('source_seed', 'fold', 'folds')
_IDENTITY = (
  'id',
  *_CELL,
  *_LEVELS,
  'status',
  'chosen',
  'init',
  'deterministic',
  'num_train',
  'num_classes',
  'frozen_stages',
  'num_stages',
  'num_phases',
  'select',
)
_TRAINING = (
  *COST,
  'features',
  'reused_stages',
  'reused_steps',
  'frozen_unchanged',
  'frozen_sha256_before',
  'frozen_sha256_after',
  'cohort',
  'source_sha256',
  'data_sha256',
)
COLUMNS = (*_IDENTITY, *metrics.ALWAYS, *_TRAINING)  # of a classification
_TEXT = (
  'id',
  *_CELL[:3],
  'status',
  'init',
  'select',
  'features',
  'frozen_sha256_before',
  'frozen_sha256_after',
  'cohort',
  'source_sha256',
  'data_sha256',
)
_WHOLE = ('shots', 'seed', 'frozen_stages', 'num_stages', 'num_phases')
_TRUTH = ('chosen', 'deterministic', 'frozen_unchanged')
_REMEDY = 'Delete that run folder and run the study again.'


class Results(NamedTuple):
  """A study as the report needs it; `methods` and `pairs` (source, target) in the config's order.

  Sources and targets go by their base names, their seeds and folds are columns of the runs
  (levels.py).
  sources: {name in the folder: its result.json}, of those that have one.
  solved: the methods that are solved exactly in every phase: they have a penalty and no learning
  rate, steps or curves. all_shots: {target: the mean number of examples a class that `shots` 0,
  which is all, stands for}, where it is known. whole: the targets whose examples have no classes,
  so that shots are examples. data: {'source/target' by names in the folder: what study.json says of
  the images: class_names, num_examples, notes}. metrics: {target: what its settings are chosen by}.
  times: seconds of every start of the study, as in time.json. found: {run: its result.json}.
  """

  workdir: Any
  name: str
  claim: str
  config: Mapping[str, Any]
  plan: Mapping[str, Any]
  versions: Mapping[str, str]
  devices: list
  baseline: str
  methods: list[str]
  pairs: list[tuple[str, str]]
  sources: Mapping[str, Mapping[str, Any]]
  solved: frozenset[str]
  all_shots: Mapping[str, float]
  whole: frozenset[str]
  data: Mapping[str, Mapping[str, Any]]
  metrics: Mapping[str, Metric]
  times: Sequence[Mapping[str, float]]
  found: Mapping[str, Mapping[str, Any]]
  runs: pd.DataFrame

  def each(self, target: str = '') -> str:
    """What sizes are counted by: ' per class', or '' where examples have no classes."""
    targets = {target} if target else set(self.metrics)
    return '' if targets <= self.whole else ' per class'

  @property
  def words(self) -> str:
    """What scores are called: 'accuracy', or 'score' where targets are scored differently."""
    metric = metrics.one(self.metrics.values())
    return metric.words if metric else 'score'


CONFIRM, OPENED = 'confirm', 'opened.json'  # a study on seeds that were kept, and its record
_STUDY_REMEDY = 'Delete it and run the study again, it writes it first.'


def as_path(path):
  """A pathlib.Path, or an etils path where the name has a scheme such as gs://."""
  if '://' in str(path):
    from etils import epath  # here, since it costs more to import than a local study costs to read

    return epath.Path(path)
  return pathlib.Path(path)


def read(workdir) -> pd.DataFrame:
  """One row a finished run of the study's last config, sorted by source, target, method, shots (0,
  which is all, last), seed and rates.

  `val_<column>` and `test_<column>` are all numbers that some result has, in its own units, NaN
  where a run has none; `select` is the column that the run was chosen by. Accuracies are fractions
  in [0, 1]; they are `correct` / `count` where these are known. Costs keep the names and units of
  docs/results.md. What a folder of an earlier version does not tell is NaN. `reused_stages` is that
  of the last phase, `reused_steps` counts the steps of all phases that reuse any. `num_phases`
  counts the phases; `frozen_unchanged` says that the digest of the frozen leaves is the same before
  and after every phase (False where no phase says so); `frozen_sha256_*` are those of the last
  phase. `deterministic` runs depend on no seed: those of one cell are copies. `source_seed` and
  `fold` (from 1, of `folds`) are NaN where a source was not trained by the study and a target has
  no folds.

  Raises:
    ValueError: there is no such folder, it holds no finished run, or a result.json cannot be read,
    lacks a field, or is not what
      its digest says.
  """
  folder = as_path(workdir)
  found = _results(folder)
  config = (_json(folder / 'study.json', _STUDY_REMEDY) or {}).get('config')
  return _frame(found, config if isinstance(config, Mapping) else {})


def _results(folder) -> list[tuple[Any, Mapping[str, Any]]]:
  """[(path, content)] of every finished run's result.json, checked against the digest in it; see
  `read` for what is raised.
  """
  if not folder.is_dir():
    raise ValueError(
      f'No study at {folder}: no such folder. Give the --workdir the study was run with.'
    )
  found, wanted = [], _wanted(folder)
  for run in (folder / 'runs').iterdir() if (folder / 'runs').is_dir() else ():
    if wanted and run.name not in wanted:
      continue
    result = _sealed(run / 'result.json', _REMEDY)
    if result is not None:  # it is written last: without it the run is not done
      found.append((run / 'result.json', result))
  if not found:
    raise ValueError(
      f'No finished run in {folder}: wanted runs/*/result.json. Run the study first, or wait for '
      'its first run.'
    )
  return found


def _wanted(folder) -> frozenset[str]:
  """The runs of the study's last config: the folder may hold others, of a config that had more.
  Empty where nobody says.
  """
  study = _json(folder / 'study.json', _STUDY_REMEDY) or {}
  plan = study.get('plan')
  return frozenset(plan.get('runs', ())) if isinstance(plan, Mapping) else frozenset()


def opened(workdir) -> Mapping[str, Any]:
  """When the seeds of a folder of confirming runs were opened, and for what (study/confirm.py)."""
  return _sealed(workdir / OPENED, 'The claims of such a folder are confirmed no more.') or {}


def _sealed(path, remedy: str) -> Mapping[str, Any] | None:
  """A sealed file as `_json` gives it, refused if its content is not what its `sha256` says.

  Earlier versions wrote none, and no `files` either.
  """
  result = _json(path, remedy)
  if result is not None and ('sha256' in result or 'files' in result):
    content = {name: value for name, value in result.items() if name != 'sha256'}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    if hashlib.sha256(text.encode()).hexdigest() != result.get('sha256'):
      raise ValueError(
        f'{path} has changed since it was written: its content is not what its sha256 says. '
        f'{remedy}'
      )
  return result


def base(name: str) -> str:
  """'mnist' of 'mnist@1', 'faces' of 'faces@2of5'; other names as they are."""
  return name.partition('@')[0]


def _apart(runs: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
  """The runs with their levels in columns of their own, and sources and targets by base names.

  The seed of a source that bears its own name stands in the config; NaN for weights and where it is
  not told, as `fold` and `folds` are without folds.
  """
  folds = runs['target'].str.extract(r'@(\d+)of(\d+)$').astype(float)
  told = {name: _seed(source) for name, source in _entries(config.get('sources'))}
  of_levels = runs['source'].str.extract(r'@(\d+)$')[0].astype(float)
  return runs.assign(
    source=runs['source'].map(base),
    target=runs['target'].map(base),
    source_seed=of_levels.fillna(runs['source'].map(told).astype(float)),
    fold=folds[0],
    folds=folds[1],
  )


def _entries(declared: Any) -> Iterable[tuple[str, Any]]:
  return declared.items() if isinstance(declared, Mapping) else ()


def _seed(source: Any) -> float:
  """The seed that a study trains a source with; NaN of weights."""
  trained = isinstance(source, Mapping) and source.get('dataset')
  return float(source.get('seed', math.nan)) if trained else math.nan


def _frame(
  found: Iterable[tuple[Any, Mapping[str, Any]]], config: Mapping[str, Any]
) -> pd.DataFrame:
  """The results as `read` gives them."""
  rows: list[dict[str, Any]] = []
  scores: dict[str, None] = {}
  for path, result in found:
    try:
      row = _row(result)
      of_run = _scores(result)
      rows.append({name: _typed(name, value) for name, value in (row | of_run).items()})
      scores |= dict.fromkeys(of_run)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      reason = f'no field {error}' if isinstance(error, KeyError) else str(error)
      raise ValueError(f'Cannot read {path}: {reason}. {_REMEDY}') from error
  frame = _apart(pd.DataFrame(rows), config)
  frame = frame[[*_IDENTITY, *sorted(scores, key=_rank), *_TRAINING]]
  order = ['source', 'source_seed', 'target', 'fold', *_CELL[2:]]
  return frame.sort_values(order, kind='stable', ignore_index=True, key=by_size)


def _rank(column: str) -> tuple[bool, bool]:
  """The key that puts validation before the test, and of each what earlier versions had first."""
  return column.startswith('test_'), column not in metrics.ALWAYS


def _typed(name: str, value: Any) -> Any:
  """A column's value in its type; numbers may be missing."""
  if name in _TEXT:
    return value
  if name in _TRUTH:
    return bool(value)
  return int(value) if name in _WHOLE else float(math.nan if value is None else value)


def _json(path, remedy: str) -> Any:
  """The object in a JSON file; None where there is no such file.

  Raises:
    ValueError: it cannot be read, with its name and what to do.
  """
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (ValueError, OSError, RecursionError) as error:
    raise ValueError(f'Cannot read {path}: {error}. {remedy}') from error
  if not isinstance(content, Mapping):
    raise ValueError(
      f'Cannot read {path}: wanted an object with fields, got {type(content).__name__}. {remedy}'
    )
  return content


def by_size(column: pd.Series) -> pd.Series:
  """The key of `sort_values` that puts shots from few to many, 0 (all) last. Other columns stay."""
  return column.astype(float).replace(0.0, math.inf) if column.name == 'shots' else column


def in_order(shots: Iterable[int]) -> list[int]:
  """The different sizes from few to many; 0 is all, and last."""
  return sorted(set(shots), key=lambda size: size or math.inf)


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
  """{column: its value} of one result.json."""
  cell, cost, phases = result['cell'], result['cost'], result['phases']
  last = phases[-1] if phases else {}
  reused = [phase['steps'] for phase in phases if phase.get('reused_stages')]
  told = [phase for phase in phases if 'reused_stages' in phase]
  return {
    'id': result['id'],
    **{name: cell[name] for name in _CELL},
    'source': cell['source']
    or '',  # a random start may have none; '' sorts and groups where None would vanish
    'status': result['status'],
    'chosen': result['chosen'],
    'init': result['init'],
    'frozen_stages': result['frozen_stages'],
    'num_stages': result['num_stages'],
    'cohort': result['cohort'],
    'source_sha256': result['source_sha256'],
    'data_sha256': result['data_sha256'],
    'deterministic': result.get('deterministic'),
    'num_train': result.get('num_train'),
    'num_classes': result.get('num_classes'),
    'num_phases': len(phases),
    'select': metrics.selected(result)[0],
    **{name: cost.get(name) if name in _NEW else cost[name] for name in COST},
    'features': cost.get('features', ''),
    'reused_stages': last.get('reused_stages'),
    'reused_steps': sum(reused) if told else None,
    'frozen_unchanged': bool(phases)
    and all(p['frozen_sha256_before'] == p['frozen_sha256_after'] for p in phases),
    'frozen_sha256_before': last.get('frozen_sha256_before'),
    'frozen_sha256_after': last.get('frozen_sha256_after'),
  }


def _scores(result: Mapping[str, Any]) -> dict[str, float | None]:
  """{'test_loss': its value} of all scores that are numbers, without lists such as one a class."""
  column, _ = metrics.selected(result)
  always = metrics.ALWAYS if column == metrics.SELECT[0] else (f'val_{column}', f'test_{column}')
  found: dict[str, float | None] = dict.fromkeys(always)
  for split in ('val', 'test'):
    for name, value in metrics.repaired(result[split] or {}).items():
      if value is None or isinstance(value, (int, float)):
        found[f'{split}_{name}'] = value
  last = result.get('last') or {}  # of a run that ended with its best step
  for split in ('val', 'test'):
    if last.get(split):
      found[f'last_{split}_{column}'] = last[split][column]
  return found


def load(workdir) -> Results:
  """The runs of a folder together with its study.json.

  Raises:
    ValueError: as `read`, or study.json is missing, or it, time.json or a source's result.json is
    not what they are to be.
  """
  folder = as_path(workdir)
  found = _results(folder)
  study = _study(folder / 'study.json')
  config = study['config']
  # pandas takes rows of Python's strings all at once, and of its own a column at a time
  runs = _frame(found, config).astype(dict.fromkeys(_TEXT, object))
  runs.columns = runs.columns.astype(object)
  methods = ordered(runs['method'], config.get('methods'))
  seen = set(zip(runs['source'], runs['target']))
  every_pair = itertools.product(
    *(ordered(runs[kind], _bases(config.get(f'{kind}s'))) for kind in ('source', 'target'))
  )
  pairs = [pair for pair in every_pair if pair in seen]
  remedy = 'Delete that source folder and run the study again.'
  names = ordered((result['cell']['source'] or '' for _, result in found), config.get('sources'))
  sources = {
    name: _sealed(folder / 'sources' / name / 'result.json', remedy) or {} for name in names
  }
  strata = {base(result['cell']['target']): result.get('num_strata') for _, result in found}
  whole = frozenset(target for target, number in strata.items() if number == 1)
  every = runs[runs['shots'] == 0]
  per_class = every['num_train'] / every['num_classes'].mask(every['target'].isin(whole), 1.0)
  all_shots = per_class.groupby(every['target']).max().dropna().to_dict()
  solved = frozenset(name for name in methods if _is_solved(phases_of(config, name)))
  return Results(
    folder,
    study.get('name') or folder.name,
    study.get('claim') or '',
    config,
    study['plan'],
    study['versions'],
    study.get('devices') or [],
    config.get('baseline') or '',
    methods,
    pairs,
    sources,
    solved,
    all_shots,
    whole,
    study['data'],
    _metrics(result for _, result in found),
    _times(folder / 'time.json'),
    {result['id']: result for _, result in found},
    _once(runs, solved),
  )


def _metrics(found: Iterable[Mapping[str, Any]]) -> dict[str, Metric]:
  """{target: the metric that its runs are chosen by}.

  Raises:
    ValueError: the runs of one target do not agree on it.
  """
  by_target: dict[str, Metric] = {}
  for result in found:
    metric, target = metrics.of(*metrics.selected(result)), base(result['cell']['target'])
    if by_target.setdefault(target, metric) != metric:
      raise ValueError(
        f'The runs of {target} are chosen by {by_target[target].column} and by {metric.column}. '
        'Delete the run folders of one task.'
      )
  return by_target


def scored(runs: pd.DataFrame) -> pd.DataFrame:
  """The runs with the column that each was chosen by as `val_score` and `test_score`."""
  return runs.assign(val_score=_selected(runs, 'val'), test_score=_selected(runs, 'test'))


def _selected(rows: pd.DataFrame, split: str) -> pd.Series:
  """Of each row the column of that split that its `select` names."""
  score = pd.Series(math.nan, rows.index)
  for column in rows['select'].unique():
    score = score.mask(rows['select'] == column, rows.get(f'{split}_{column}', math.nan))
  return score


def _once(runs: pd.DataFrame, solved: frozenset[str]) -> pd.DataFrame:
  """The runs with `deterministic` set where not told: alike exact solutions of all examples."""
  whole = runs['method'].isin(solved) & (runs['shots'] == 0)
  cells = scored(runs).groupby([*_CELL[:4], *_CELL[5:]], dropna=False)
  alike = cells['val_score'].transform('nunique') == 1
  return runs.assign(deterministic=runs['deterministic'] | (whole & alike))


def _study(path) -> dict[str, Any]:
  """study.json, with the fields that are objects checked to be.

  Raises:
    ValueError: it is missing or cannot be read; its name is in the message.
  """
  study = _sealed(path, _STUDY_REMEDY)
  if study is None:
    raise ValueError(
      f'No {path}: the report takes the claim and the baseline from it. Run the study again, it '
      'writes it first.'
    )
  if 'config' not in study:
    raise ValueError(f"Cannot read {path}: no field 'config'. {_STUDY_REMEDY}")
  study = {**study, **{name: study.get(name) or {} for name in ('plan', 'versions', 'data')}}
  for name in ('config', 'plan', 'versions', 'data'):
    if not isinstance(study[name], Mapping):
      raise ValueError(
        f'Cannot read {path}: {name} is an object with fields, got {study[name]!r}. {_STUDY_REMEDY}'
      )
  return study


def _times(path) -> list[Mapping[str, float]]:
  """time.json: a dict of seconds for every start of the study; empty where there is none."""
  try:
    starts = json.loads(path.read_text(encoding='utf-8'))
    times: list[Mapping[str, float]] = []
    for start in starts:
      times.append({name: float(seconds) for name, seconds in start.items()})
    return times
  except FileNotFoundError:
    return []
  except (ValueError, TypeError, AttributeError, OSError) as error:
    raise ValueError(
      f'Cannot read {path}: {error}. Delete it: only the table of times is made from it.'
    ) from error


def method_of(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  """A method as the config describes it; empty where it only names it."""
  methods = config.get('methods')
  return (methods.get(name) or {}) if isinstance(methods, Mapping) else {}


def phases_of(config: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
  """The phases of a method in the config."""
  return method_of(config, name).get('phases', ())


def _is_solved(phases: Sequence[Mapping[str, Any]]) -> bool:
  """Whether every phase, of one at least, is an exact solution."""
  return bool(phases) and all(phase.get('solver', 'sgd') != 'sgd' for phase in phases)


def _bases(declared) -> list[str]:
  """The declared names without their levels."""
  return [base(_name(entry)) for entry in declared or ()]


def _name(entry: Any) -> str:
  return entry.get('name') or '' if isinstance(entry, Mapping) else entry


def ordered(found: Iterable[str], declared) -> list[str]:
  """The names found in the runs, those the config declares (a dict, or a list of names or of
  {'name'}) first and in its order.
  """
  names = [_name(entry) for entry in declared or ()]
  found = set(found)
  return [name for name in dict.fromkeys(names) if name in found] + sorted(found - set(names))


def read_metrics(workdir, ids: Iterable[str]) -> pd.DataFrame:
  """The lines of metrics.jsonl of the named runs, with the run's `id`: step, phase, loss,
  grad_norm, and val_<column> of every column that some line has.

  Raises:
    ValueError: a line cannot be read, or the file is not the one that the run wrote.
  """
  rows = []
  columns = dict.fromkeys(('step', 'phase', 'loss', 'grad_norm', 'val_loss'))
  for name in ids:
    path = as_path(workdir) / 'runs' / name / 'metrics.jsonl'
    content = _file(path)
    if content is None:
      continue  # a folder slimmed for sending still has its tables
    try:
      for text in content.decode().splitlines():
        if text.strip():
          line = json.loads(text)
          columns |= dict.fromkeys(key for key in line if key.startswith('val_'))
          rows.append({'id': name, **{key: _typed(key, line.get(key)) for key in columns}})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
      raise ValueError(f'Cannot read {path}: {error}. {_REMEDY}') from error
  return pd.DataFrame(rows, columns=['id', *columns]).astype(dict.fromkeys(columns, float))


def read_curves(workdir, runs: pd.DataFrame) -> pd.DataFrame:
  """`read_metrics` of some of the runs, with the column that each was chosen by as `val_score`."""
  lines = read_metrics(workdir, runs['id']).merge(runs[['id', 'select']], on='id')
  return lines.assign(val_score=_selected(lines, 'val'))


def read_predictions(workdir, name: str) -> dict[str, np.ndarray] | None:
  """What a tested run's predictions.npz holds: ids [N], labels [N, ...] and what its task keeps,
  logits [N, K] of a classification; None where there is none.

  Raises:
    ValueError: the file cannot be read, or is not the one that the run wrote.
  """
  path = as_path(workdir) / 'runs' / name / 'predictions.npz'
  content = _file(path)
  if content is None:
    return None
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
      return {key: file[key] for key in ('ids', 'labels', *set(file.files) - {'ids', 'labels'})}
  except (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
  ) as error:
    raise ValueError(f'Cannot read {path}: {error}. {_REMEDY}') from error


def read_records(workdir, source: str, target: str) -> Mapping[str, Any]:
  """{id: what the study left of a test example for the report}; empty where it left nothing.

  Raises:
    ValueError: the file cannot be read, or is not the one that the study wrote.
  """
  path = as_path(workdir) / 'examples' / f'{source}-{target}.json'
  found = (_sealed(path, 'Delete it and run the study again.') or {}).get('records', {})
  return found if isinstance(found, Mapping) else {}


def data_of(results: Results, source: str, target: str) -> Mapping[str, Any]:
  """What study.json says of the data of a pair, of the first of its source seeds and folds."""
  for pair, data in results.data.items():
    if [base(name) for name in pair.split('/')] == [source, target]:
      return data
  return {}


def target_names(results: Results, target: str) -> list[str]:
  """What a target is called in the folder: its folds, or itself."""
  names = dict.fromkeys(result['cell']['target'] for result in results.found.values())
  return [name for name in names if base(name) == target]


def read_subsets(workdir, target: str) -> dict[int, dict[int, frozenset[str]]]:
  """{shots: {seed: ids of the training examples}} of a target; empty where its file is not there.

  Raises:
    ValueError: the file cannot be read.
  """
  path = as_path(workdir) / 'subsets' / f'{target}.json'
  remedy = 'Delete it and run the study again.'
  study = _json(as_path(workdir) / 'study.json', _STUDY_REMEDY) or {}
  wanted = (study.get('files') or {}).get(f'subsets/{target}.json')
  if wanted and path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
    raise ValueError(f'{path} has changed since it was written. {remedy}')
  found: dict[int, dict[int, frozenset[str]]] = {}
  try:
    for seed, of_seed in (_json(path, remedy) or {}).items():
      for shots, ids in of_seed.items():
        found.setdefault(int(shots), {})[int(seed)] = frozenset(ids)
  except (TypeError, AttributeError) as error:
    raise ValueError(f'Cannot read {path}: {error}. {remedy}') from error
  return found


def _file(path) -> bytes | None:
  """A file of a run's folder, checked against the digest in the run's result.json if that has one;
  None where there is none.
  """
  try:
    content = path.read_bytes()
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise ValueError(f'Cannot read {path}: {error}. {_REMEDY}') from error
  wanted = ((_json(path.parent / 'result.json', _REMEDY) or {}).get('files') or {}).get(path.name)
  if wanted is not None and hashlib.sha256(content).hexdigest() != wanted:
    raise ValueError(
      f'{path} has changed since it was written: it is not what the sha256 in result.json says. '
      f'{_REMEDY}'
    )
  return content
