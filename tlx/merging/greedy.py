"""Greedy soup: the mean of those weights that improve it on validation."""

from collections.abc import Mapping, Sequence

from tlx import ranges
from tlx.merging import Merged, Score, Vector, mean_of

RANGES: Mapping[str, ranges.Kind] = {}
OVER = 'settings'
FROM_START = False


def merge(vectors: Sequence[Vector], score: Score) -> Merged:
  """From the first vector on, which is the best on validation, each next one stays in the mean
  where that is at least as good.

  Wortsman et al. 2022, recipe 1; the official code (mlfoundations/model-soups, main.py) asks for
  more than that of each next one.
  """
  soup = Merged(vectors[0], (0,))
  best = score(soup)
  for place in range(1, len(vectors)):
    used = (*soup.used, place)
    tried = Merged(mean_of([vectors[i] for i in used]), used)
    value = score(tried)
    if value >= best:
      soup, best = tried, value
  return soup
