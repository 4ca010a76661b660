"""Claims as data: what a config states of its study's results before they are there, and the
verdicts. Each is one number of every source seed, fold and seed, and its interval is over all of
these.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from tlx import ranges
from tlx.plug import closest
from tlx.report import levels, metrics, numbers, statistics
from tlx.report.folder import CONFIRM, OPENED, Results, load, opened
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
  # of a trend, fraction or correlation: one field and its values, in the order that is claimed
  'along': {},
  # of the test; '' is what settings are chosen by, 'source_score' what its source scored on the
  # test part of its own data, 'steps_to_0.9' the steps until validation by what settings are chosen
  # by reaches 0.9: all that there were where it does not
  'column': '',
  'minus_column': '',  # of a correlation: that of `minus`, where it is another
  'expected': 'above',  # the threshold, or 'below' it
  'threshold': 0.0,
}
RANGES: Mapping[str, ranges.Kind] = {
  'expected': ('above', 'below'),
  'threshold': ranges.Range(-ranges.LARGEST, ranges.LARGEST),
}
FIELDS = ('source', 'target', 'method', 'shots')
SOURCE_SCORE = 'source_score'
STEPS_TO = 'steps_to_'
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
  spread: the scores are how far each result is from the median of all places.
  ends: between which the number lies, where there are such.
  """

  fields: tuple[str, ...]
  sides: Callable[[Mapping[str, Any]], list[Selection]]
  value: Callable[[Sequence[float]], float]
  spread: bool = False
  ends: tuple[float, float] | None = None


def _two(claim: Mapping[str, Any]) -> list[Selection]:
  return [claim['of'], {**claim['of'], **claim['minus']}]


def _four(claim: Mapping[str, Any]) -> list[Selection]:
  return [*_two(claim), *({**side, **claim['than']} for side in _two(claim))]


def _along(claim: Mapping[str, Any]) -> list[Selection]:
  """`of` at each value of the field that `along` names."""
  ((field, values),) = claim['along'].items()
  return [{**claim['of'], field: (value,)} for value in values]


def _both_along(claim: Mapping[str, Any]) -> list[Selection]:
  """`_along` of what is claimed, and then of what it is compared with."""
  changed = {**claim['of'], **claim['minus']}
  if claim['minus_column']:
    changed['column'] = claim['minus_column']
  return [*_along(claim), *_along({**claim, 'of': changed})]


def _difference(scores: Sequence[float]) -> float:
  return scores[0] - scores[1]


def _interaction(scores: Sequence[float]) -> float:
  return _difference(scores[:2]) - _difference(scores[2:])


def _ratio(scores: Sequence[float]) -> float:
  return scores[0] / scores[1] if scores[1] else math.nan


def _trend(scores: Sequence[float]) -> float:
  """Kendall's tau-b of the scores with their order, in [-1, 1]; 0 where all are equal."""
  if not np.ptp(scores):
    return 0.0
  from scipy import stats  # half a second, which most reports do not need

  return float(stats.kendalltau(range(len(scores)), scores).statistic)


def _fraction(scores: Sequence[float]) -> float:
  """The share of pairs whose first is larger, in [0, 1]; one that ties counts half."""
  half = len(scores) // 2
  signs = np.sign(np.subtract(scores[:half], scores[half:]))
  return float((signs + 1).mean() / 2)


def _correlation(scores: Sequence[float]) -> float:
  """Spearman's rank correlation of two halves, in [-1, 1]; NaN where one of them is constant."""
  half = len(scores) // 2
  one, other = scores[:half], scores[half:]
  if not (np.ptp(one) and np.ptp(other)):
    return math.nan
  from scipy import stats

  return float(stats.spearmanr(one, other).statistic)


KINDS = {
  'difference': Kind(('of', 'minus'), _two, _difference),
  'interaction': Kind(('of', 'minus', 'than'), _four, _interaction),
  'ratio': Kind(('of', 'minus'), _two, _ratio),
  'trend': Kind(('of', 'along'), _along, _trend, ends=(-1.0, 1.0)),
  'fraction': Kind(('of', 'minus', 'along'), _both_along, _fraction, ends=(0.0, 1.0)),
  'correlation': Kind(('of', 'minus', 'along'), _both_along, _correlation, ends=(-1.0, 1.0)),
  # of Brown and Forsythe 1974: which of two varies more
  'spread': Kind(('of', 'minus'), _two, _difference, spread=True),
}
SCORES = (
  'difference',
  'interaction',
  'spread',
)  # kinds whose number is one of the column's own unit


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
  if claim['minus_column'] and claim['kind'] != 'correlation':
    raise ValueError(f"{where}.minus_column is for a claim of kind 'correlation'.")
  for field in ('of', 'minus', 'than', 'along'):
    given_else = (field == 'of' and claim['along']) or (field == 'minus' and claim['minus_column'])
    if field in fields and not claim[field] and not given_else:
      raise ValueError(f'{where}.{field} is empty; a claim of kind {claim["kind"]!r} needs it.')
    if field not in fields and claim[field]:
      raise ValueError(f'{where}.{field} is not for a claim of kind {claim["kind"]!r}.')
  given = {name: _selected(f'{where}.{name}', claim[name], have) for name in fields}
  along = given.get('along', {})
  if 'along' in fields:
    _check_along(where, claim['kind'], given)
  if 'method' not in {**given['of'], **along}:
    raise ValueError(f'{where}.of names no method; have {", ".join(have["method"])}.')
  of = {name: tuple(have[name]) for name in FIELDS} | given['of']
  made = {**claim, **given, 'of': of}
  sides = KINDS[claim['kind']].sides(made)
  if any(one == other for one, other in itertools.combinations(sides, 2)):
    raise ValueError(f'{where} compares results with themselves: {rule(made)}.')
  return made


def _check_along(where: str, kind: str, given: Mapping[str, Selection]) -> None:
  """Raises ValueError where a claim is not along the values of one field that nothing else sets."""
  least = 3 if kind == 'correlation' else 2
  if len(given['along']) != 1 or len(next(iter(given['along'].values()))) < least:
    raise ValueError(f'{where}.along takes one field with {least} values or more, in order.')
  (field,) = given['along']
  for name in ('of', 'minus'):
    if field in given.get(name, {}):
      raise ValueError(f'{where}.{name} sets {field}, along which the claim goes; leave it out.')


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
  columns = [*columns, SOURCE_SCORE]
  for field in ('column', 'minus_column'):
    asked = claim[field]
    if asked.startswith(STEPS_TO):
      located = f'{where}.{field} {asked!r} wants a score behind {STEPS_TO}, as in {STEPS_TO}0.9.'
      _threshold(asked, located)
    elif asked and not any(fnmatch(asked, column) for column in columns):
      raise ValueError(
        f'{where}.{field}: no test gives {asked!r}; have {", ".join(columns)}.'
        + closest(asked, columns)
      )


def verdicts(results: Results) -> pd.DataFrame:
  """A row a claim of the study's config, in its order, with the columns of COLUMNS.

  `estimate`, `low` and `high` are the mean of what the claim is about over all places (source
  seed, fold, seed) that every result has which it needs, and the 95% interval
  (`statistics.crossed_interval`); `t_p` tests that it is the threshold, and `holm_p` corrects that
  over all claims. Where every result is the same end of what there can be, as a trend of 1, both
  are exact (`statistics.all_at_an_end`). A claim 'holds' where the interval lies beyond the
  threshold on the expected side and `holm_p` is below 0.05, 'fails' where it lies so on the other
  side, else it is 'undecided', and `why` says for what reason.
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
  if undefined := [place for place, value in values.items() if not math.isfinite(value)]:
    missing = f'its {claim["kind"]} is undefined in {len(undefined)} of {len(values)} results'
    values = {}
  threshold = claim['threshold']
  runs = pd.concat([results.runs[:0], *itertools.chain(*cells)])
  pair = statistics.paired(values, dict.fromkeys(values, threshold), overlap=levels.overlap(runs))
  low, high, t_p = pair.low + threshold, pair.high + threshold, pair.t_p
  if ends := KINDS[claim['kind']].ends:
    if math.isnan(t_p):
      overlap = levels.overlap(runs)
      low, high, t_p = statistics.all_at_an_end(values, ends, threshold, overlap=overlap)
    low, high = np.clip((low, high), *ends).tolist()  # beyond there is nothing
  return {
    **{name: claim[name] for name in ('paper', 'kind', 'column', 'expected', 'threshold')},
    'claim': claim['name'],
    'rule': rule(claim),
    'estimate': pair.difference + threshold,
    'low': low,
    'high': high,
    'n': pair.n,
    'over': levels.over_places(values),
    't_p': t_p,
    'why': missing,
  }


def _cells(results: Results, claim: Mapping[str, Any]) -> tuple[list[list[pd.DataFrame]], str]:
  """(the tested runs of each cell of each side, what is missing or '')."""
  runs, sides = numbers.tested(results), []
  for selection in KINDS[claim['kind']].sides(claim):
    column = selection.get('column', claim['column'])
    scored_by = {results.metrics[target].column for target in _every(claim, 'target', results)}
    if not column and len(scored_by) > 1:
      return [], f'its targets are scored by different columns: {", ".join(sorted(scored_by))}'
    computed = column in ('', SOURCE_SCORE) or column.startswith(STEPS_TO)
    if not computed and f'test_{column}' not in runs:
      return [], f'no test has the column {column}'
    claimed, side = runs.assign(claimed=_column(results, runs, column)), []
    for source, target, method, shots in itertools.product(*(selection[f] for f in FIELDS)):
      found = numbers.references(claimed, method)(source, target, shots)
      side.append(found[found['claimed'].notna()])
      if not len(side[-1]):
        return [], f'no run of {method} at {shots} of {source} → {target} is tested'
    sides.append(side)
  return sides, ''


def _column(results: Results, runs: pd.DataFrame, column: str) -> pd.Series:
  """What each run has in a column of the test."""
  if column.startswith(STEPS_TO):
    return numbers.steps_to(results, runs, _threshold(column))
  if column != SOURCE_SCORE:
    return runs[f'test_{column}' if column else 'test_score']
  scores = {}
  for name, source in results.sources.items():
    if 'test' in source:
      scores[name] = source['test'][source['select'][0]]
  return runs['id'].map(lambda run: scores.get(results.found[run]['cell']['source'], math.nan))


def _threshold(column: str, otherwise: str = '') -> float:
  """The score in 'steps_to_0.9'; raises ValueError, `otherwise`, where there is none."""
  try:
    score = float(column.removeprefix(STEPS_TO))
  except ValueError:
    score = math.nan
  if not math.isfinite(score):
    raise ValueError(otherwise)
  return score


def _every(claim: Mapping[str, Any], field: str, results: Results) -> list[str]:
  """What a claim names in any of its sides, of that which has results."""
  named = itertools.chain(*(side[field] for side in KINDS[claim['kind']].sides(claim)))
  return [name for name in dict.fromkeys(named) if name in results.metrics]


def _values(kind: Kind, sides: Sequence[Sequence[pd.DataFrame]]) -> dict[Place, float]:
  """{place: what a claim is about, there}; a side is the mean of its cells."""
  scores = []
  for cell in itertools.chain(*sides):
    once = levels.once(levels.telling_apart(cell, 'claimed'))
    claimed = once['claimed']
    if kind.spread:
      claimed = (claimed - claimed.median()).abs()
    scores.append(dict(zip(levels.places(once), claimed)))
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
    return 'undecided', f'the interval includes the threshold{_needed(row)}'
  if row['holm_p'] >= 0.05:
    return 'undecided', 'the interval does not include the threshold, but Holm p is not below 0.05'
  above = row['estimate'] > row['threshold']
  return ('holds' if above == (row['expected'] == 'above') else 'fails'), ''


def _needed(row: Mapping[str, Any]) -> str:
  """How many seeds would decide a claim: half an interval is t_{n-1} s / sqrt(n). Where several
  factors vary, more levels of which is not known; folds are parts of one set of examples.
  """
  apart, n = abs(row['estimate'] - row['threshold']), row['n']
  what = row['over'].partition(' ')[2]
  if n < 2 or what not in ('seeds', 'source seeds') or row['estimate'] in (row['low'], row['high']):
    return ''

  def shrinks(number: int) -> float:
    return float(special.stdtrit(number - 1, 0.975)) / math.sqrt(number)

  half = max(row['high'] - row['estimate'], row['estimate'] - row['low'])
  wanted = (m for m in range(n + 1, 100 * n) if half * shrinks(m) / shrinks(n) < apart)
  if not (number := next(wanted, 0)):
    return ''
  return f'; about {number} {what} would decide it, if mean and spread stay as they are'


def rule(claim: Mapping[str, Any]) -> str:
  """What is compared, in words: 'method full − scratch (source mnist; shots 5)'."""
  of, minus, than, along = (claim[field] for field in ('of', 'minus', 'than', 'along'))
  sign = {'ratio': '/', 'fraction': '>', 'correlation': 'with'}.get(claim['kind'], '−')
  changed = [f'{field} {_listed(of[field])} {sign} {_listed(minus[field])}' for field in minus]
  if claim['minus_column']:
    changed.append(f'{claim["column"] or "the score"} {sign} {claim["minus_column"]}')
  if than:
    beside = [f'{field} {_listed(of[field])} against {_listed(than[field])}' for field in than]
    changed.append(f'for {", ".join(beside)}')
  for field, values in along.items():
    changed.append(f'along {field} {", ".join(map(_shown, values))}')
  same = [f'{f} {_listed(of[f])}' for f in FIELDS if f not in {*minus, *than, *along}]
  return f'{", ".join(changed)} ({"; ".join(same)})'


def _shown(value: Any) -> str:
  return 'all' if value == 0 else str(value)


def _listed(values: Sequence[Any]) -> str:
  return levels.listed([_shown(value) for value in values])


def tables(results: Results) -> list[Table]:
  """The verdicts, a row a claim: those on seeds that were kept for confirming, where they are
  open, and those of the study itself; none where a config claims nothing.
  """
  made = []
  kept = results.workdir / CONFIRM
  if (kept / OPENED).exists() and any(kept.glob('runs/*/result.json')):
    made += _confirmed(load(kept), 'claims-confirmed')
  if (results.workdir / OPENED).exists():
    return _confirmed(results, 'claims')
  title, note = 'Claims and verdicts', 'The config states them; it cannot show that this was first.'
  if results.config.get('confirm'):
    title += ', exploratory'
    note += ' Seeds are kept for confirming them (--confirm).'
  return made + _table(results, 'claims', title, note)


def _confirmed(results: Results, name: str) -> list[Table]:
  """The verdicts on seeds that were kept, and when and for what they were opened."""
  record = opened(results.workdir)
  kept = '; '.join(
    f'{field.replace("_", " ")} {_listed(seeds)}'
    for field, seeds in record['stated']['seeds'].items()
  )
  note = f'{kept} were kept until these claims stood and opened on {record["opened"]}.'
  return _table(results, name, 'Claims and verdicts, on seeds kept for confirming', note)


def _table(results: Results, name: str, title: str, note: str) -> list[Table]:
  frame = verdicts(results)
  if not len(frame):
    return []
  rows = []
  for row in frame.to_dict('records'):
    scored_by = _metric(results, row)
    # Other numbers than differences of scores have no unit.
    metric = scored_by if row['kind'] in SCORES else metrics.of(row['kind'])
    signed = row['kind'] not in ('ratio', 'fraction')
    side = {'above': '>', 'below': '<'}[row['expected']]
    interval = [metric.written(row[end], signed) for end in ('low', 'high')]
    rows.append(
      {
        'Claim': row['claim'] + (f' ({row["paper"]})' if row['paper'] else ''),
        'Verdict': row['verdict'],
        'Found': f'{metric.written(row["estimate"], signed)}{metric.points}',
        '95% interval': '–' if math.isnan(row['low']) else f'[{", ".join(interval)}]',
        'Claimed': f'{side} {metric.written(row["threshold"], signed)}',
        'Holm p': probability(row['holm_p']),
        'Of': f'{_words(row["kind"])}{scored_by.words}: {row["rule"]}',
        'Over': row['over'],
        'Undecided since': row['why'],
      }
    )
  note += (
    ' Holds: the 95% interval lies beyond the '
    'threshold on the claimed side and Holm p, over the claims that can be tested, is below 0.05; '
    'fails: so on the other side; else undecided. Found is the mean over what stands under Over, '
    'of numbers paired by source seed, fold, seed and subset, and the interval covers all of '
    'these, but neither other test examples nor weights from elsewhere, which are one network.'
  )
  shown = pd.DataFrame(rows)
  if not shown['Undecided since'].any():
    shown = shown.drop(columns='Undecided since')
  return [Table(name, title, shown, frame, note)]


def _words(kind: str) -> str:
  return '' if kind in ('difference', 'interaction') else f'{kind} of '


def _metric(results: Results, row: Mapping[str, Any]) -> Metric:
  """How the numbers of a claim are written."""
  if row['column']:
    return metrics.of(row['column'])
  return metrics.one(results.metrics.values()) or metrics.of('score')
