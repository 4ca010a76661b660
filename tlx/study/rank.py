"""Sources in the order in which scores expect them to serve a target (tlx/scores)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tlx.plug import plug
from tlx.study import config as configs
from tlx.study import evidence
from tlx.types import Variables

FROM_SOURCE = 1000  # examples of the source, for scores that want them
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
  examples: dict[str, Any] = {}
  for target in study['targets']:
    for source, own in variables.items():
      found = evidence.gather(study, source, target, workdir, shots, every=stages, variables=own)
      if source not in examples:
        examples[source] = _of_source(study, source, modules, own, stages)
      for stage in found.features:
        row = {'target': target, 'source': source, 'stage': stage, 'examples': len(found.labels)}
        rows.append(row | _scored(modules, found, stage, examples[source]))
  return pd.DataFrame(rows)


def _of_source(
  study: Mapping[str, Any],
  source: str,
  modules: Mapping[str, Any],
  variables: Variables,
  every: bool,
) -> Any:
  """What `evidence.of_source` has, where a score wants it and the study trains the source on
  classes; else None.
  """
  wanted = any('source_features' in module.NEEDS for module in modules.values())
  fields = study['sources'][source]
  if not wanted or not fields['dataset'] or configs.named(fields['task'])[0] != 'classification':
    return None
  return evidence.of_source(study, source, variables, FROM_SOURCE, every)


def _scored(
  modules: Mapping[str, Any], found: evidence.Evidence, stage: str, of_source: Any
) -> dict[str, float]:
  """{score: value} of one stage; probabilities are of the last."""
  is_last = stage == list(found.features)[-1]
  has = {'features': found.features[stage]}
  if is_last and found.probs is not None:
    has['probs'] = found.probs
  if of_source is not None:
    labels, features = of_source
    has |= {'source_features': features[stage], 'source_labels': labels}
  values = {}
  for name, module in modules.items():
    there = all(need in has for need in module.NEEDS)
    given = {need: has[need] for need in module.NEEDS if need in has}
    values[name] = module.score(found.labels, **given) if there else float('nan')
  return values
