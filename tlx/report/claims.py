"""Claims as data: what a config states of its study's results before they are there, and the
verdicts. Each is one number of every source seed, fold and seed, and its interval is over all of
these.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, NamedTuple

import pandas as pd

from tlx import ranges
from tlx.plug import closest
from tlx.report import levels, metrics, numbers, statistics
from tlx.report.folder import Results
from tlx.report.formats import Table, probability
from tlx.report.metrics import Metric

CLAIM = {
  'name': '',  # the statement in words
  'paper': '',  # that made it
  'kind': 'difference',  # one of KINDS
  # the results that it speaks of: source, target, method, shots, each one or several, of which the
  # mean is taken; what is left out is all that the study has, but for the method
  'of': {},
  'minus': {},  # the fields in which what is subtracted differs
  'than': {},  # of an interaction: the fields in which the other difference differs
  'column': '',  # of the test; '' is what settings are chosen by
  'expected': 'above',  # the threshold, or 'below' it
  'threshold': 0.0,
}
RANGES: Mapping[str, ranges.Kind] = {
  'expected': ('above', 'below'),
  'threshold': ranges.Range(-ranges.LARGEST, ranges.LARGEST),
}
FIELDS = ('source', 'target', 'method', 'shots')
COLUMNS = [
  'claim',
  'paper',
  'kind',
  'rule',
  'column',
  'expected',
  'threshold',
  'estimate',
  'low',
  'high',
  'n',
  'over',
  't_p',
  'holm_p',
  'verdict',
  'why',
]
Selection = Mapping[str, Any]
Place = tuple[int, ...]


class Kind(NamedTuple):
  """A rule: which selections a claim compares, what their means make, and how it is said.

  fields: those of a claim that it needs. sides: claim -> its selections, by their fields.
  value: the mean score of each side, at one place -> the number that the claim is about.
  """

  fields: tuple[str, ...]
  sides: Callable[[Mapping[str, Any]], list[Selection]]
  value: Callable[[Sequence[float]], float]


def _two(claim: Mapping[str, Any]) -> list[Selection]:
  return [claim['of'], {**claim['of'], **claim['minus']}]


def _four(claim: Mapping[str, Any]) -> list[Selection]:
  return [*_two(claim), *({**side, **claim['than']} for side in _two(claim))]


def _difference(scores: Sequence[float]) -> float:
  return scores[0] - scores[1]


def _interaction(scores: Sequence[float]) -> float:
  return _difference(scores[:2]) - _difference(scores[2:])


KINDS = {
  'difference': Kind(('of', 'minus'), _two, _difference),
  'interaction': Kind(('of', 'minus', 'than'), _four, _interaction),
}


def resolved(
  where: str, claim: Mapping[str, Any], have: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
  """A claim with the fields of CLAIM whose selections are complete: tuples of names and sizes.

  Args:
    have: {'source': names, 'target': names, 'method': names, 'shots': sizes} of the study, without
      seeds and folds.

  Raises:
    ValueError: an unknown kind, field, name or size, or a selection that is compared with itself.
  """
  if not claim['name']:
    raise ValueError(f'{where}.name is empty; it says what is claimed.')
  if claim['kind'] not in KINDS:
    raise ValueError(
      f'{where}.kind {claim["kind"]!r} is unknown; have {", ".join(KINDS)}.'
      + closest(claim['kind'], KINDS)
    )
  fields = KINDS[claim['kind']].fields
  for field in ('of', 'minus', 'than'):
    if field in fields and not claim[field]:
      raise ValueError(f'{where}.{field} is empty; a claim of kind {claim["kind"]!r} needs it.')
    if field not in fields and claim[field]:
      raise ValueError(f'{where}.{field} is not for a claim of kind {claim["kind"]!r}.')
  given = {name: _selected(f'{where}.{name}', claim[name], have) for name in fields}
  if 'method' not in given['of']:
    raise ValueError(f'{where}.of names no method; have {", ".join(have["method"])}.')
  of = {name: tuple(have[name]) for name in FIELDS} | given['of']
  made = {**claim, **given, 'of': of}
  sides = KINDS[claim['kind']].sides(made)
  if any(one == other for one, other in itertools.combinations(sides, 2)):
    raise ValueError(f'{where} compares results with themselves: {rule(made)}.')
  return made


def _selected(
  where: str, selection: Mapping[str, Any], have: Mapping[str, Sequence[Any]]
) -> dict[str, tuple]:
  """The fields of a selection, each as a tuple.

  Raises:
    ValueError: a field, name or size that the study lacks.
  """
  found = {}
  for field, value in selection.items():
    if field not in FIELDS:
      raise ValueError(
        f'{where} has no field {field!r}; it has {", ".join(FIELDS)}.{closest(field, FIELDS)}'
      )
    wanted = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    for one in wanted:
      if one not in have[field] or isinstance(one, bool):
        names = list(map(str, have[field]))
        raise ValueError(
          f'{where}.{field}: the study has no {field} {one!r}; have {", ".join(names)}.'
          + closest(str(one), names)
        )
    if not wanted or len(set(wanted)) < len(wanted):
      raise ValueError(f'{where}.{field} takes one or several different ones, got {value!r}.')
    found[field] = wanted
  return found


def check_column(where: str, claim: Mapping[str, Any], columns: Iterable[str]) -> None:
  """Raises ValueError where no column of a study's tests, which may be patterns, is the claim's."""
  columns = list(columns)
  if claim['column'] and not any(fnmatch(claim['column'], column) for column in columns):
    raise ValueError(
      f'{where}.column: no test gives {claim["column"]!r}; have {", ".join(columns)}.'
      + closest(claim['column'], columns)
    )


def verdicts(results: Results) -> pd.DataFrame:
  """A row a claim of the study's config, in its order, with the columns of COLUMNS.

  `estimate`, `low` and `high` are the mean of what the claim is about over all places (source
  seed, fold, seed) that every result has which it needs, and the 95% interval
  (`statistics.crossed_interval`); `t_p` tests that it is the threshold, and `holm_p` corrects that
  over all claims. A claim 'holds' where the interval lies beyond the threshold on the expected side
  and `holm_p` is below 0.05, 'fails' where it lies so on the other side, else it is 'undecided',
  and `why` says for what reason.
  """
  made = pd.DataFrame(
    [_row(results, claim) for claim in results.config.get('claims') or ()], columns=COLUMNS
  )
  made['holm_p'] = statistics.holm(made['t_p'].astype(float))
  found = [_verdict(row) for row in made.to_dict('records')]
  made['verdict'] = [verdict for verdict, _ in found]
  made['why'] = [why for _, why in found]
  return made


def _row(results: Results, claim: Mapping[str, Any]) -> dict[str, Any]:
  """The columns of a claim, but for what depends on the others."""
  cells, missing = _cells(results, claim)
  values = {} if missing else _values(KINDS[claim['kind']], cells)
  if not values:
    missing = missing or 'there is no source seed, fold and seed that all its runs have'
  threshold = claim['threshold']
  runs = pd.concat([results.runs[:0], *itertools.chain(*cells)])
  pair = statistics.paired(values, dict.fromkeys(values, threshold), overlap=levels.overlap(runs))
  return {
    **{name: claim[name] for name in ('paper', 'kind', 'column', 'expected', 'threshold')},
    'claim': claim['name'],
    'rule': rule(claim),
    'estimate': pair.difference + threshold,
    'low': pair.low + threshold,
    'high': pair.high + threshold,
    'n': pair.n,
    'over': levels.over_places(values),
    't_p': pair.t_p,
    'why': missing,
  }


def _cells(results: Results, claim: Mapping[str, Any]) -> tuple[list[list[pd.DataFrame]], str]:
  """(the tested runs of each cell of each side, what is missing or '')."""
  runs, column = numbers.tested(results), claim['column']
  scored_by = {results.metrics[target].column for target in _every(claim, 'target', results)}
  if not column and len(scored_by) > 1:
    return [], f'its targets are scored by different columns: {", ".join(sorted(scored_by))}'
  if column and f'test_{column}' not in runs:
    return [], f'no test has the column {column}'
  runs = runs.assign(claimed=runs[f'test_{column}'] if column else runs['test_score'])
  sides = []
  for selection in KINDS[claim['kind']].sides(claim):
    side = []
    for source, target, method, shots in itertools.product(*(selection[f] for f in FIELDS)):
      found = numbers.references(runs, method)(source, target, shots)
      side.append(found[found['claimed'].notna()])
      if not len(side[-1]):
        return [], f'no run of {method} at {shots} of {source} → {target} is tested'
    sides.append(side)
  return sides, ''


def _every(claim: Mapping[str, Any], field: str, results: Results) -> list[str]:
  """What a claim names in any of its sides, of that which has results."""
  named = itertools.chain(*(side[field] for side in KINDS[claim['kind']].sides(claim)))
  return [name for name in dict.fromkeys(named) if name in results.metrics]


def _values(kind: Kind, sides: Sequence[Sequence[pd.DataFrame]]) -> dict[Place, float]:
  """{place: what a claim is about, there}; a side is the mean of its cells."""
  scores = []
  for cell in itertools.chain(*sides):
    scores.append(dict(zip(levels.places(cell), levels.once(cell)['claimed'])))
  ends = list(itertools.accumulate(map(len, sides), initial=0))
  values = {}
  for place, of_cells in levels.common(scores).items():
    parts = [of_cells[begin:end] for begin, end in itertools.pairwise(ends)]
    values[place] = kind.value([math.fsum(part) / len(part) for part in parts])
  return values


def _verdict(row: Mapping[str, Any]) -> tuple[str, str]:
  """('holds', 'fails' or 'undecided', why it is not decided or '')."""
  if row['why']:
    return 'undecided', row['why']
  if math.isnan(row['holm_p']):
    few = 'one result says' if row['n'] == 1 else 'results that do not vary say'
    return 'undecided', f'{few} nothing about chance'
  if row['low'] <= row['threshold'] <= row['high']:
    return 'undecided', 'the interval includes the threshold'
  if row['holm_p'] >= 0.05:
    return 'undecided', 'the interval does not include the threshold, but Holm p is not below 0.05'
  above = row['estimate'] > row['threshold']
  return ('holds' if above == (row['expected'] == 'above') else 'fails'), ''


def rule(claim: Mapping[str, Any]) -> str:
  """What is compared, in words: 'method full − scratch (source mnist; shots 5)'."""
  of, minus, than = claim['of'], claim['minus'], claim['than']
  changed = [f'{field} {_listed(of[field])} − {_listed(minus[field])}' for field in minus]
  if than:
    beside = [f'{field} {_listed(of[field])} against {_listed(than[field])}' for field in than]
    changed.append(f'for {", ".join(beside)}')
  same = [f'{field} {_listed(of[field])}' for field in FIELDS if field not in {*minus, *than}]
  return f'{", ".join(changed)} ({"; ".join(same)})'


def _listed(values: Sequence[Any]) -> str:
  return levels.listed(['all' if value == 0 else str(value) for value in values])


def tables(results: Results) -> list[Table]:
  """The verdicts, a row a claim; none where a config claims nothing."""
  frame = verdicts(results)
  if not len(frame):
    return []
  rows = []
  for row in frame.to_dict('records'):
    metric = _metric(results, row)
    side = {'above': '>', 'below': '<'}[row['expected']]
    interval = [metric.written(row[end], signed=True) for end in ('low', 'high')]
    rows.append(
      {
        'Claim': row['claim'] + (f' ({row["paper"]})' if row['paper'] else ''),
        'Verdict': row['verdict'] + (f': {row["why"]}' if row['why'] else ''),
        'Found': f'{metric.written(row["estimate"], signed=True)}{metric.points}',
        '95% interval': '–' if math.isnan(row['low']) else f'[{", ".join(interval)}]',
        'Claimed': f'{side} {metric.written(row["threshold"], signed=True)}',
        'Holm p': probability(row['holm_p']),
        'Of': f'{metric.words}: {row["rule"]}',
        'Over': row['over'],
      }
    )
  note = (
    'As the config states them; it cannot show that this was before there were results. '
    'Holds: the 95% interval lies beyond the '
    'threshold on the claimed side and Holm p, over the claims that can be tested, is below 0.05; '
    'fails: so on the other side; else undecided. Found is the mean over what stands under Over, '
    'of numbers paired by source seed, fold, seed and subset, and the interval covers all of '
    'these, but neither other test examples nor weights from elsewhere, which are one network.'
  )
  return [Table('claims', 'Claims and verdicts', pd.DataFrame(rows), frame, note)]


def _metric(results: Results, row: Mapping[str, Any]) -> Metric:
  """How the numbers of a claim are written."""
  if row['column']:
    return metrics.of(row['column'])
  return metrics.one(results.metrics.values()) or metrics.of('score')
