"""Sources in the order in which scores expect them to serve a target (tlx/scores)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tlx.plug import plug
from tlx.study import config as configs
from tlx.study import evidence
from tlx.study.fisher import fisher
from tlx.types import Variables

FROM_SOURCE = 1000  # examples of a source at most, for scores that want them
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
  known = [source for source in variables if _is_known(study, source)]
  needed = {need for module in modules.values() for need in module.NEEDS}
  examples, tasks = {}, {}
  if 'source_features' in needed:
    examples = as_many(
      {
        source: evidence.of_source(study, source, variables[source], FROM_SOURCE, stages)
        for source in known
      }
    )
  if 'source_fisher' in needed:
    tasks = {source: _fisher_of_source(study, source, variables) for source in known}
  for target in study['targets']:
    of_target = _fisher_of_target(study, target, variables, shots) if tasks else None
    for source, own in variables.items():
      found = evidence.gather(study, source, target, workdir, shots, every=stages, variables=own)
      for stage in found.features:
        row = {'target': target, 'source': source, 'stage': stage, 'examples': len(found.labels)}
        has = _evidence(found, stage, examples.get(source), of_target, tasks.get(source))
        rows.append(row | _scored(modules, found.labels, has))
  return pd.DataFrame(rows)


def _is_known(study: Mapping[str, Any], source: str) -> bool:
  """Whether the study has a source's own examples, and they are of classes."""
  fields = study['sources'][source]
  return bool(fields['dataset']) and configs.named(fields['task'])[0] == 'classification'


def as_many(
  examples: Mapping[str, tuple[np.ndarray, dict[str, np.ndarray]]],
) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
  """{source: what `evidence.of_source` has} of as many examples of each source as the smallest has,
  drawn at random: an entropy that is counted among few examples comes out too low, so that a source
  would rise by being small.
  """
  fewest = min((len(labels) for labels, _ in examples.values()), default=0)
  made = {}
  for source, (labels, features) in examples.items():
    rows = np.sort(np.random.default_rng(0).permutation(len(labels))[:fewest])
    made[source] = labels[rows], {stage: values[rows] for stage, values in features.items()}
  return made


def _fisher_of_source(
  study: Mapping[str, Any], source: str, variables: Mapping[str, Variables]
) -> np.ndarray:
  """Of a source's task in the probe network, which is that of the study's first source."""
  probe = next(iter(variables))
  fields = study['sources'][source] | {
    name: study['sources'][probe][name] for name in ('backbone', 'input')
  }
  seen = {**study, 'sources': {**study['sources'], source: fields}}
  labels, examples = evidence.examples_of_source(seen, source, FROM_SOURCE)
  return fisher(study, probe, variables[probe], examples, labels)


def _fisher_of_target(
  study: Mapping[str, Any], target: str, variables: Mapping[str, Variables], shots: int
) -> np.ndarray:
  """Of a target's task in the probe network."""
  probe = next(iter(variables))
  labels, _, examples = evidence.examples_of_target(study, probe, target, shots, most=FROM_SOURCE)
  return fisher(study, probe, variables[probe], examples, labels)


def _evidence(
  found: evidence.Evidence,
  stage: str,
  of_source: tuple[np.ndarray, Mapping[str, np.ndarray]] | None,
  of_target: np.ndarray | None,
  of_task: np.ndarray | None,
) -> dict[str, np.ndarray]:
  """What scores may take of one stage, by its name in NEEDS; what is about a whole network stands
  beside the last.
  """
  has = {'features': found.features[stage]}
  if of_source is not None:
    labels, features = of_source
    has |= {'source_features': features[stage], 'source_labels': labels}
  if stage == list(found.features)[-1]:
    whole = {'probs': found.probs, 'fisher': of_target, 'source_fisher': of_task}
    has |= {need: value for need, value in whole.items() if value is not None}
  return has


def _scored(
  modules: Mapping[str, Any], labels: np.ndarray, has: Mapping[str, np.ndarray]
) -> dict[str, float]:
  """{score: value}, NaN where there is not what it takes."""
  values = {}
  for name, module in modules.items():
    there = all(need in has for need in module.NEEDS)
    given = {need: has[need] for need in module.NEEDS if need in has}
    values[name] = module.score(labels, **given) if there else float('nan')
  return values
