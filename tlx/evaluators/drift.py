"""How far training carried features and parameters away from the source."""

import numpy as np

from tlx import tree
from tlx.evaluators import Finished
from tlx.similarity import cka

KEPT = ''
COLUMNS = ('cka_*', 'l2_*')


def evaluate(finished: Finished) -> dict[str, float]:
  """Of each stage with parameters before the head; nothing of a run that started at random.

  'cka_<stage>': linear CKA of what comes out of the stage in the run and in the source on the test
    set, averaged over places (Kornblith et al. 2019, eq. 3 with linear kernels): 1 where one is a
    rotation and scaling of the other, NaN where either is constant
  'l2_<stage>': the Euclidean distance of the stage's parameters from the source's; added leaves,
    which the source has not, are left out
  """
  if finished.source_params is None:
    return {}
  stages = [stage for stage in finished.stages if finished.params.get(stage)]
  ours, theirs = (finished.by_stage('test', stages, source=which) for which in (False, True))
  columns = {f'cka_{stage}': cka.similarity(ours[stage], theirs[stage]) for stage in stages}
  started = dict(tree.named_leaves(finished.source_params))
  squares: dict[str, float] = {}
  for name, leaf in tree.named_leaves(finished.params):
    stage = name.split('/')[0]
    if stage in finished.stages and name in started:
      moved = np.asarray(leaf, np.float64) - np.asarray(started[name], np.float64)
      squares[stage] = squares.get(stage, 0.0) + float((moved**2).sum())
  return columns | {f'l2_{stage}': total**0.5 for stage, total in squares.items()}
