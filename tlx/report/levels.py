"""The levels by which the runs of one cell differ: the source's seed, the fold and the seed; and
their intervals.

In a study's folder a source of several seeds is 'mnist' and 'mnist@1', a fold 'faces@2of5'. In the
report such runs are of one source 'mnist' and one target 'faces', and have `source_seed`, `fold`
and `folds` as columns (folder.read).
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tlx.report import statistics

FACTORS = ['source_seed', 'fold', 'seed']
ROUNDING = 1e-5  # copies may differ by so much of a value
_NAMES = {'source_seed': 'source seed', 'fold': 'fold', 'seed': 'seed'}


def factors(runs: pd.DataFrame) -> list[str]:
  """What the runs of a cell depend on: a random start on no source, some exact ones on no seed."""
  source = ['source_seed'] if (runs['init'] != 'random').any() else []
  return [*source, 'fold', *([] if runs['deterministic'].all() else ['seed'])]


def once(runs: pd.DataFrame) -> pd.DataFrame:
  """The runs of a cell as results: one alone of those that are copies, as no seed changes them."""
  return runs.drop_duplicates(factors(runs)) if runs['deterministic'].all() else runs


def telling_apart(runs: pd.DataFrame, column: str) -> pd.DataFrame:
  """The runs of a cell, none of them a copy where what they have in a column differs: an evaluator
  may look at a run's own training examples.
  """
  values = runs[column].dropna().astype(float)
  differ = len(values) and np.ptp(values) > ROUNDING * np.abs(values).max()
  return runs.assign(deterministic=False) if differ else runs


def counts(runs: pd.DataFrame) -> dict[str, int]:
  """{'source seed': 3, 'seed': 5}: the factors that have several levels in these runs."""
  found = {_NAMES[factor]: runs[factor].nunique() for factor in FACTORS}
  return {name: count for name, count in found.items() if count > 1}


def are_crossed(runs: pd.DataFrame) -> bool:
  """Whether more than the seed varies."""
  return bool(counts(runs).keys() - {'seed'})


def over(runs: pd.DataFrame) -> str:
  """'3 source seeds, 5 folds and 5 seeds'; '1 seed' of a single run."""
  return listed([f'{count} {name}s' for name, count in counts(runs).items()] or ['1 seed'])


def over_places(places: Iterable[tuple[int, ...]]) -> str:
  """`over` of the (source seed, fold, seed) of results; '' of none."""
  frame = pd.DataFrame(list(places), columns=FACTORS)
  return over(frame) if len(frame) else ''


def listed(words: Sequence[str]) -> str:
  """'a, b and c'."""
  return ' and '.join(filter(None, (', '.join(words[:-1]), words[-1])))


def overlap(runs: pd.DataFrame) -> tuple[float, float, float]:
  """The n_test / n_train of `statistics.errors` for each factor: of k folds 1 / (k - 1)."""
  folds = runs['folds'].max() if len(runs) else math.nan
  return 0.0, 0.0 if math.isnan(folds) else 1 / (folds - 1), 0.0


def interval(runs: pd.DataFrame, column: str) -> statistics.Interval:
  """The mean of a column over runs of one cell, with its interval over all that varies in them.

  Raises:
    ValueError: two runs stand at one place, or a value is not finite.
  """
  scores = dict(zip(places(runs), once(runs)[column]))
  return statistics.crossed_interval(scores, overlap(runs))


def paired(
  runs: pd.DataFrame,
  reference: pd.DataFrame,
  scores: Callable[[pd.DataFrame], list[statistics.Score]],
) -> statistics.Paired:
  """Scores of `runs` minus those of `reference` of the same source seed, fold and seed.

  What one side does not depend on stands beside every level that the other has.

  Raises:
    ValueError: as `interval`.
  """
  ours, theirs = (dict(zip(places(side), scores(once(side)))) for side in (runs, reference))
  return statistics.paired(*matched(ours, theirs), overlap=overlap(pd.concat([runs, reference])))


_NONE = -1  # of a factor that a run does not depend on, or whose level is not told


def places(runs: pd.DataFrame) -> list[tuple[int, ...]]:
  """(source seed, fold, seed) of each result of a cell (`once`).

  Raises:
    ValueError: two chosen runs are one result.
  """
  if not len(runs):
    return []
  runs = once(runs)
  without = dict.fromkeys((factor for factor in FACTORS if factor not in factors(runs)), _NONE)
  known = runs[FACTORS].assign(**without).fillna(_NONE).astype(int)
  found = list(known.itertuples(index=False, name=None))
  if len(set(found)) < len(found):
    raise ValueError(
      f'Two chosen runs with one seed: {", ".join(runs["id"])}. A cell has one; remove the folder '
      'of the wrong one.'
    )
  return found


def matched(
  ours: Mapping[tuple, Any], theirs: Mapping[tuple, Any]
) -> tuple[dict[tuple, Any], dict[tuple, Any]]:
  """Both by places that they share: equal in what both depend on, and otherwise of the one that
  depends on it. What has no partner keeps its own place.
  """
  free = [{i for i in range(3) if all(at[i] == _NONE for at in side)} for side in (ours, theirs)]
  common = [i for i in range(3) if (i in free[0]) == (i in free[1])]
  partners: dict[tuple, list[tuple]] = {}
  for place in theirs:
    partners.setdefault(tuple(place[i] for i in common), []).append(place)
  left: dict[tuple, Any] = {}
  right: dict[tuple, Any] = {}
  taken = set()
  for place, score in ours.items():
    found = partners.get(tuple(place[i] for i in common), [])
    taken |= set(found)
    for other in found:
      both = tuple(map(max, place, other))
      left[both], right[both] = score, theirs[other]
    if not found:
      left[place] = score
  right |= {place: score for place, score in theirs.items() if place not in taken}
  return left, right


def common(cells: Sequence[Mapping[tuple, Any]]) -> dict[tuple, list[Any]]:
  """{place: the score of each cell there}, of the places that all of them have.

  What a cell does not depend on stands beside every level of the others, and so does a source that
  is one network; a cell of which one seed or fold is left is paired with that alone.
  """
  found = [[{place[i] for place in cell} for i in range(len(FACTORS))] for cell in cells]
  axes = []
  for i in range(len(FACTORS)):
    several = [of_cell[i] for of_cell in found if not _is_beside_all(i, of_cell[i])]
    axes.append(sorted(set.intersection(*several)) if several else [_NONE])
  made = {}
  for place in itertools.product(*axes):
    scores = []
    for cell, of_cell in zip(cells, found):
      own = []
      for i, level in enumerate(place):
        own.append(min(of_cell[i]) if _is_beside_all(i, of_cell[i]) else level)
      scores.append(cell.get(tuple(own)))
    if None not in scores:
      made[place] = scores
  return made


def _is_beside_all(factor: int, levels: Collection[int]) -> bool:
  """Whether a cell with these levels of a factor stands beside every level that others have."""
  if FACTORS[factor] == 'source_seed':
    return len(levels) < 2
  return set(levels) == {_NONE}
