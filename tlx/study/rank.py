"""Sources in the order in which scores expect them to serve a target (tlx/scores)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tlx.plug import plug
from tlx.study import config as configs
from tlx.study import evidence

SCORES = ('knn', 'linear_probe', 'logme', 'h_score', 'leep', 'nleep', 'transrate', 'gbc', 'sfda')


def rank(
  config: Mapping[str, Any],
  workdir: str | os.PathLike = '',
  scores: Sequence[str] = SCORES,
  stages: bool = False,
  shots: int = 0,
) -> pd.DataFrame:
  """A row for each target, source (and stage, with `stages`; else the last before the head): every
  score on the target's training examples, NaN where a source has not what a score takes.

  Features are computed once for all scores. No test example is looked at.

  Args:
    shots: examples a class, of the study's first seed; 0 is all.

  Raises:
    ValueError: an unknown score, or what evidence.gather raises.
  """
  study = configs.resolve(config)
  modules = {name: plug('scores', name) for name in scores}
  rows = []
  variables = {
    source: evidence.source_variables(study, source, workdir) for source in study['sources']
  }
  for target in study['targets']:
    for source, own in variables.items():
      found = evidence.gather(study, source, target, workdir, shots, every=stages, variables=own)
      for stage in found.features:
        row = {'target': target, 'source': source, 'stage': stage, 'examples': len(found.labels)}
        rows.append(row | _scored(modules, found, stage))
  return pd.DataFrame(rows)


def _scored(modules: Mapping[str, Any], found: evidence.Evidence, stage: str) -> dict[str, float]:
  """{score: value} of one stage; probabilities are of the last."""
  values, is_last = {}, stage == list(found.features)[-1]
  for name, module in modules.items():
    if module.NEEDS == ('features',):
      values[name] = module.score(found.labels, found.features[stage])
    elif is_last and found.probs is not None:
      values[name] = module.score(found.labels, found.probs)
    else:
      values[name] = float('nan')
  return values
