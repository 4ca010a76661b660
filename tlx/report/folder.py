"""Reading the folder a study leaves (docs/results.md), finished or not."""
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

COLUMNS = (
    'id', 'source', 'target', 'method', 'shots', 'seed', 'learning_rate', 'weight_decay', 'status', 'chosen', 'init',
    'num_train', 'num_classes', 'frozen_stages', 'num_stages', 'num_phases', 'val_accuracy', 'val_loss', 'test_accuracy', 'test_loss',
    'trainable_params', 'total_params', 'optimizer_bytes', 'train_flops', 'steps', 'train_seconds', 'feature_seconds', 'compile_seconds',
    'compiled_programs', 'peak_memory_bytes', 'reused_stages', 'reused_steps', 'frozen_unchanged', 'frozen_sha256_before',
    'frozen_sha256_after', 'cohort', 'source_sha256', 'data_sha256')
_CELL = ('source', 'target', 'method', 'shots', 'seed', 'learning_rate', 'weight_decay')
_COST = COLUMNS[COLUMNS.index('trainable_params'):COLUMNS.index('reused_stages')]
_NEW = ('feature_seconds', 'compiled_programs')  # of the costs: folders of version 0.1 lack them


class Results(NamedTuple):
  """A study as the report needs it; `methods` and `pairs` (source, target) stand in the order of the config.

  sources: {name: its result.json}, of those that have one.
  solved: the methods that are solved exactly in every phase: they have a penalty and no learning rate, steps or curves.
  all_shots: {target: the mean number of examples a class that `shots` 0, which is all, stands for}, where it is known.
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
  runs: pd.DataFrame


def as_path(path):
  """A pathlib.Path, or an etils path where the name has a scheme such as gs://."""
  if '://' in str(path):
    from etils import epath  # here, since it costs more to import than a local study costs to read
    return epath.Path(path)
  return pathlib.Path(path)


def read(workdir) -> pd.DataFrame:
  """One row a finished run, sorted by source, target, method, shots (0, which is all, last), seed and rates.

  Accuracies are fractions in [0, 1], NaN where the run has none; costs keep the names and units of docs/results.md. What a folder
  of an earlier version does not tell is NaN. `reused_stages` is that of the last phase, `reused_steps` counts the steps of all phases that reuse any.
  `num_phases` counts the phases; `frozen_unchanged` says that the digest of the frozen leaves is the same before and after
  every phase (False where no phase says so); `frozen_sha256_*` are those of the last phase.

  Raises:
    ValueError: there is no such folder, it holds no finished run, or a result.json cannot be read or lacks a field.
  """
  folder = as_path(workdir)
  if not folder.is_dir():
    raise ValueError(f'No study at {folder}: no such folder. Give the --workdir the study was run with.')
  rows = []
  for run in (folder / 'runs').iterdir() if (folder / 'runs').is_dir() else ():
    try:
      rows.append(_row(json.loads((run / 'result.json').read_text())))
    except (FileNotFoundError, NotADirectoryError):
      continue  # result.json is written last: this run is not done
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      reason = f'no field {error}' if isinstance(error, KeyError) else str(error)
      raise ValueError(f'Cannot read {run / "result.json"}: {reason}. Delete that run folder and run the study again.') from error
  if not rows:
    raise ValueError(f'No finished run in {folder}: wanted runs/*/result.json. Run the study first, or wait for its first run.')
  runs = pd.DataFrame(rows, columns=list(COLUMNS))
  numbers = ['num_train', 'num_classes', 'val_accuracy', 'val_loss', 'test_accuracy', 'test_loss', *_COST, 'reused_stages', 'reused_steps']
  runs[numbers] = runs[numbers].astype(float)
  return runs.sort_values([*_CELL], kind='stable', ignore_index=True, key=by_size)


def by_size(column: pd.Series) -> pd.Series:
  """The key of `sort_values` that puts shots from few to many: 0 is all, and last. Other columns stay."""
  return column.astype(float).replace(0.0, math.inf) if column.name == 'shots' else column


def in_order(shots: Iterable[int]) -> list[int]:
  """The different sizes from few to many; 0 is all, and last."""
  return sorted(set(shots), key=lambda size: size or math.inf)


def _row(result: Mapping[str, Any]) -> tuple:
  cell, cost, phases = result['cell'], result['cost'], result['phases']
  val, test = result['val'] or {}, result['test'] or {}
  last = phases[-1] if phases else {}
  reused = [phase['steps'] * (phase['reused_stages'] > 0) for phase in phases if 'reused_stages' in phase]
  unchanged = bool(phases) and all(p['frozen_sha256_before'] == p['frozen_sha256_after'] for p in phases)
  # A random start may have no source; '' sorts and groups where None would vanish.
  return (result['id'], cell['source'] or '', *(cell[key] for key in _CELL[1:]), result['status'], bool(result['chosen']),
          result['init'], result.get('num_train'), result.get('num_classes'), result['frozen_stages'], result['num_stages'], len(phases),
          *(scores.get(key, math.nan) for scores in (val, test) for key in ('accuracy', 'loss')),
          *(cost.get(key) if key in _NEW else cost[key] for key in _COST), last.get('reused_stages'), sum(reused) if reused else None,
          unchanged, last.get('frozen_sha256_before'), last.get('frozen_sha256_after'),
          result['cohort'], result['source_sha256'], result['data_sha256'])


def load(workdir) -> Results:
  """The runs of a folder together with its study.json.

  Raises:
    ValueError: as `read`, or study.json is missing, is not JSON, or has no config; a source's result.json is not JSON.
  """
  runs = read(workdir)
  path = as_path(workdir) / 'study.json'
  try:
    study = json.loads(path.read_text())
    config = study['config']
  except FileNotFoundError as error:
    raise ValueError(f'No {path}: the report takes the claim and the baseline from it. Run the study again, it writes it first.') from error
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f'Cannot read {path}: {error!r}. Run the study again, it writes it first.') from error
  methods = _ordered(runs['method'], config.get('methods'))
  seen = set(zip(runs['source'], runs['target']))
  pairs = [(source, target) for source in _ordered(runs['source'], config.get('sources'))
           for target in _ordered(runs['target'], config.get('targets')) if (source, target) in seen]
  sources = {name: _source(as_path(workdir) / 'sources' / name / 'result.json') for name, _ in pairs}
  every = runs[runs['shots'] == 0]
  all_shots = (every['num_train'] / every['num_classes']).groupby(every['target']).max().dropna().to_dict()
  solvers = {name: {phase.get('solver', 'sgd') for phase in phases_of(config, name)} for name in methods}
  solved = frozenset(name for name, found in solvers.items() if found and 'sgd' not in found)
  return Results(as_path(workdir), study.get('name') or as_path(workdir).name, study.get('claim') or '', config,
                 study.get('plan') or {}, study.get('versions') or {}, study.get('devices') or [],
                 config.get('baseline') or '', methods, pairs, sources, solved, all_shots, runs)


def method_of(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  """A method as the config describes it; empty where it only names it."""
  methods = config.get('methods')
  return (methods.get(name) or {}) if isinstance(methods, Mapping) else {}


def phases_of(config: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
  """The phases of a method in the config."""
  return method_of(config, name).get('phases', ())


def _source(path) -> Mapping[str, Any]:
  """A source's result.json; empty where there is none."""
  try:
    return json.loads(path.read_text())
  except (FileNotFoundError, NotADirectoryError):
    return {}
  except ValueError as error:
    raise ValueError(f'Cannot read {path}: {error}. Delete that source folder and run the study again.') from error


def _ordered(found: Iterable[str], declared) -> list[str]:
  """The names found in the runs, those the config declares (a dict, or a list of names or of {'name'}) first and in its order."""
  names = [entry.get('name') if isinstance(entry, Mapping) else entry for entry in declared or ()]
  found = set(found)
  return [name for name in dict.fromkeys(names) if name in found] + sorted(found - set(names))


def read_metrics(workdir, ids: Iterable[str]) -> pd.DataFrame:
  """The lines of metrics.jsonl of the named runs, with the run's `id`: step, phase, loss, grad_norm, val_accuracy, val_loss.

  Raises:
    ValueError: a line is not JSON.
  """
  rows = []
  for name in ids:
    path = as_path(workdir) / 'runs' / name / 'metrics.jsonl'
    try:
      rows += [{'id': name, **json.loads(line)} for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
      continue  # a folder slimmed for sending still has its tables
    except (ValueError, TypeError) as error:
      raise ValueError(f'Cannot read {path}: {error}. Delete that run folder and run the study again.') from error
  columns = ['id', 'step', 'phase', 'loss', 'grad_norm', 'val_accuracy', 'val_loss']
  return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
