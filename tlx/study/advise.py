"""What a source has to offer a target, looked at before any training, and what follows from it.

Training examples of the target alone are looked at. The answer is in words for somebody who wants
to know what to do; the table has what it rests on.
"""

import functools
import os
import pprint
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy import stats

from tlx import backbones, command, datasets, freezing
from tlx.plug import plug
from tlx.study import config as configs
from tlx.study import depth as depths
from tlx.study import evidence, lr_range, stages
from tlx.study import pair as pairs
from tlx.study.config import form_of
from tlx.study.phases import shapes_of
from tlx.train import feed
from tlx.types import Form, Network, PyTree, Variables

MOST = 1000  # examples that are looked at
FROM_SOURCE = 300  # of the source and of the target, which are told apart
GRADIENTS = 128  # of which gradients are taken


class Advice(NamedTuple):
  """For one source, target and size.

  examples: how many were looked at; shots: a class, 0 is all there are
  depth: how many of the first `groups` groups of stages to freeze; None where nothing speaks
  table: a row a depth: 'frozen' groups, up to which 'stage', 'neighbours' (leave-one-out accuracy
    of the nearest neighbour), 'gradient' (|gradient| / |weights| of the group), and where the
    source's data are known 'told apart' (proxy A-distance, 0 to 2) and 'alike' (CKA of
    covariances, 0 to 1); NaN where a column has nothing to say
  only: how many examples have a nearest neighbour of their class at the input alone, and after the
    last stage alone; (0, 0) where nothing speaks
  notes: what the source saw of the target, a sentence each
  """

  source: str
  target: str
  shots: int
  examples: int
  classes: int
  depth: int | None
  groups: tuple[str, ...]
  table: pd.DataFrame
  only: tuple[int, int]
  notes: tuple[str, ...]


def advise(
  config: Mapping[str, Any], workdir: str | os.PathLike = '', shots: int | None = None
) -> list[Advice]:
  """Advice for every source and target of a study, on the examples of its first seed.

  Args:
    workdir: the study's folder, where sources lie that it trains itself.
    shots: examples a class; the study's largest size, if None, and 0 is all.

  Raises:
    ValueError: what evidence.gather raises.
  """
  study = configs.resolve(config)
  if shots is None:
    shots = 0 if 0 in study['shots'] else max(study['shots'])
  found = []
  for source in study['sources']:
    variables = evidence.source_variables(study, source, workdir)
    for target in study['targets']:
      found.append(_advice(study, source, target, shots, variables))
  return found


def _advice(
  study: Mapping[str, Any], source: str, target: str, shots: int, variables: Variables
) -> Advice:
  seen = evidence.gather(study, source, target, '', shots, most=MOST, variables=variables)
  network, _ = stages.network_of_source(study, source)
  groups = freezing.groups(network.stages, shapes_of(study['sources'][source], network).params)
  for stage, values in seen.features.items():
    if not np.isfinite(values).all():
      raise ValueError(
        f'{source} gives {target} features that are not finite, first at {stage!r}: its weights do '
        'not fit its input. Look at sources.<name>.input.'
      )
  found = depths.advised(seen.labels, seen.features, groups)
  by_depth = depths.by_depth(list(seen.features), groups)
  gradients = _gradients(study, source, target, seen, variables, groups)
  apart = _apart(study, source, seen, variables)
  rows = []
  for k, stage in by_depth:
    rows.append(
      {
        'frozen': k,
        'stage': stage,
        'neighbours': found.neighbours.get(k, np.nan),
        'gradient': gradients[k - 1] if k else np.nan,
        **apart.get(stage, {}),
      }
    )
  _, counts = np.unique(seen.labels, return_counts=True)
  return Advice(
    source,
    target,
    shots,
    len(seen.labels),
    len(counts),
    found.k,
    tuple('+'.join(group) for group in groups),
    pd.DataFrame(rows),
    (0, 0) if found.k is None else _only(seen.labels, seen.features),
    _seen(study, source, target),
  )


def _only(labels: np.ndarray, features: Mapping[str, np.ndarray]) -> tuple[int, int]:
  """How many nearest neighbours are right at the first stage alone, and at the last alone."""
  found = list(features)
  first, last = (
    plug('scores', 'knn').hits(labels, features[stage]) for stage in (found[0], found[-1])
  )
  return int((first & ~last).sum()), int((last & ~first).sum())


def _seen(study: Mapping[str, Any], source: str, target: str) -> tuple[str, ...]:
  """What a source that the study trains saw of the target's examples."""
  if not study['sources'][source]['dataset']:
    return ()
  trained_on = pairs.source_data(study, source)
  data = pairs.load(study, study['targets'][target], study['sources'][source])
  return (
    *datasets.overlap(trained_on.train, data),
    *pairs.nearly_seen(study, source, target, trained_on),
  )


def starting_rates(
  config: Mapping[str, Any], advice: Advice, workdir: str | os.PathLike = ''
) -> lr_range.Found | None:
  """The range test of what is advised, a run on the examples of the first seed; None where no depth
  is.

  Raises:
    ValueError: what lr_range.find raises.
  """
  if advice.depth is None:
    return None
  tested = {
    **_without_claims(config),
    'methods': {'advised': {'phases': ({'tune': {'policy': 'after', 'k': advice.depth}},)}},
    'baseline': 'advised',
    'shots': (advice.shots,),
    'seeds': (config['seeds'][0],),
  }
  return lr_range.find(tested, ('advised',), advice.source, advice.target, workdir)['advised']


def said_rate(test: lr_range.Found | None) -> str:
  """The rate to begin with, in words; '' without a test."""
  if test is None:
    return ''
  low, high = test.steepest / 3, test.steepest * 3
  return (
    f'Learning rate: begin near {test.steepest:.1g}, and try {low:.1g} and {high:.1g} as well.\n'
    f'  In {len(test.rates)} steps at rates that rose from {test.rates[0]:.0e} the loss fell '
    f'fastest there; it was lowest at\n  {10 * test.tenth:.1g}, which is too high to stay at.'
  )


def _without_claims(config: Mapping[str, Any]) -> dict[str, Any]:
  """A config without what it says of its own methods."""
  given = config.to_dict() if hasattr(config, 'to_dict') else dict(config)
  default = configs.base().to_dict()
  fields = ('claim', 'claims', 'confirm', 'preset')
  return {**given, **{field: default[field] for field in fields if field in given}}


def depths_of(config: Mapping[str, Any], workdir: str | os.PathLike = '') -> pd.DataFrame:
  """What every run of a study would be advised: a row a 'source', 'target', 'shots' and 'seed',
  with the 'depth' (-1 where nothing speaks), from the training examples of that run alone.

  Raises:
    ValueError: what evidence.gather raises.
  """
  study = configs.resolve(config)
  rows = []
  for source in study['sources']:
    variables = evidence.source_variables(study, source, workdir)
    network, _ = stages.network_of_source(study, source)
    groups = freezing.groups(network.stages, shapes_of(study['sources'][source], network).params)
    for target, fields in study['targets'].items():
      seen = evidence.gather(study, source, target, variables=variables)
      data = pairs.load(study, fields, study['sources'][source])
      for seed, of_seed in pairs.subsets(study, fields, data).items():
        for shots, own in of_seed.items():
          features = {stage: values[own] for stage, values in seen.features.items()}
          k = depths.advised(seen.labels[own], features, groups).k
          about = {'source': source, 'target': target, 'shots': shots, 'seed': seed}
          rows.append({**about, 'depth': -1 if k is None else k})
  return pd.DataFrame(rows)


def _apart(
  study: Mapping[str, Any], source: str, seen: evidence.Evidence, variables: Variables
) -> dict[str, dict[str, float]]:
  """{stage: how far the source's training data are from the target's}; {} where not known."""
  if not study['sources'][source]['dataset']:
    return {}
  _, theirs = evidence.of_source(study, source, variables, FROM_SOURCE)
  own = np.random.default_rng(0).permutation(len(seen.rows))[:FROM_SOURCE]  # of every class
  proxy, covariance = (plug('distances', name).distance for name in ('proxy_a', 'covariance'))
  return {
    stage: {
      'told apart': proxy(theirs[stage], ours[own]),
      'alike': 1 - covariance(theirs[stage], ours[own]),
    }
    for stage, ours in seen.features.items()
  }


def _gradients(
  study: Mapping[str, Any],
  source: str,
  target: str,
  seen: evidence.Evidence,
  variables: Variables,
  groups: freezing.Groups,
) -> np.ndarray:
  """[groups - 1]: |gradient| / |weights| of each group but the head's, at the source's weights.

  Of the cross-entropy of the classes by the distances to their mean features, over the mean
  distance: a head that nobody has to train, and no random one.
  """
  rows = np.random.default_rng(0).permutation(len(seen.rows))[:GRADIENTS]
  data = pairs.load(study, study['targets'][target], study['sources'][source])
  features = list(seen.features.values())[-1]
  names, labels = np.unique(seen.labels, return_inverse=True)
  means = np.stack([features[labels == number].mean(0) for number in range(len(names))])
  far = ((features - means[labels]) ** 2).sum(1).mean()
  network, _ = stages.network_of_source(study, source)
  gradient = _gradient(network, form_of(study['sources'][source]))
  total = None
  for first in range(0, len(rows), 32):
    part = rows[first : first + 32]
    examples = feed.take(data.train.inputs, seen.rows[part])
    found = gradient(
      variables.params, variables.stats, examples, labels[part], means, np.float32(far or 1.0)
    )
    total = found if total is None else jax.tree.map(jnp.add, total, found)
  before = {stage: variables.params.get(stage, {}) for stage in network.stages[:-1]}
  return np.asarray(freezing.of_groups(groups, total, before, _relative))


@functools.cache
def _gradient(network: Network, form: Form) -> Callable[..., PyTree]:
  """(params, stats, stored examples, labels, means [K, D], scale) -> gradients before the head."""
  cut = backbones.head_after(network, network.stages[-2], 1)

  def loss(
    params: PyTree, stats: PyTree, examples: PyTree, labels: Any, means: Any, scale: Any
  ) -> Any:
    x = form.enter(examples)
    features, _ = cut.apply(Variables(params, stats), x, train=False, stop=len(cut.stages) - 1)
    far = ((features[:, None] - means) ** 2).sum(-1)
    return -jnp.take_along_axis(jax.nn.log_softmax(-far / scale), labels[:, None], 1).sum()

  return jax.jit(jax.grad(loss))


def _relative(grads: Mapping[str, Any], leaves: Mapping[str, Any]) -> Any:
  """|gradient| / |weights| of a group."""
  sizes = [sum(jnp.sum(jnp.square(leaf)) for leaf in tree.values()) for tree in (grads, leaves)]
  return jnp.sqrt(sizes[0] / jnp.maximum(sizes[1], 1e-24))


def said(advice: Advice) -> str:
  """The advice in words, for somebody who has never heard of any of it, and its table."""
  size = f'{advice.shots} examples a class' if advice.shots else 'all examples'
  lines = [
    f'{advice.source} -> {advice.target}, {size} ({advice.examples:,} training examples of '
    f'{advice.classes} classes were looked at, no test example)',
    '',
    *_what(advice),
    *_why(advice),
    *(f'Mind: {note}' for note in advice.notes),
    '',
    advice.table.to_string(index=False, float_format=lambda value: f'{value:.3f}', na_rep='-'),
    *(f'  {line}' for line in _COLUMNS if line.split(':')[0] in advice.table),
  ]
  return '\n'.join(lines)


def _what(advice: Advice) -> list[str]:
  """What to do, a line each."""
  if advice.depth is None:
    return [
      'Do: train the new head alone first, then everything (LP-FT).',
      '  This is no finding: with one example a class there is nothing to tell from. Two or more',
      '  examples of some class would allow a look.',
    ]
  deepest = len(advice.groups) - 1
  if advice.depth == deepest:
    return [
      f'Do: freeze everything up to {advice.groups[deepest - 1]} and train the new head alone (a '
      'linear probe).',
      '  It is also the cheapest: the frozen part runs once for each example. Adapters (LoRA) are',
      '  the next thing to try, since they leave what the source knows in place.',
    ]
  start = 'nothing' if not advice.depth else f'the stages up to {advice.groups[advice.depth - 1]}'
  return [
    f'Do: freeze {start} and fine-tune the rest.',
    '  Train the new head alone first, then the rest at a lower rate (LP-FT): a head that starts',
    '  at random spoils what it is put on, the more so the fewer examples there are.',
  ]


def _why(advice: Advice) -> list[str]:
  """What that rests on, and how far it carries."""
  if advice.depth is None:
    return []
  first, last = advice.table['neighbours'].iloc[[0, -1]]
  begin = 'as raw inputs' if advice.table['stage'].iloc[0] == stages.INPUT else 'word by word'
  change = 'keeps and sharpens' if last > first else 'does not sharpen'
  lines = [
    f'Why: take a training example and the one most like it. Compared {begin}, both have the same',
    f'  class in {100 * first:.1f}% of cases; compared by what the source makes of them, in '
    f'{100 * last:.1f}%. So the',
    f'  source {change} what tells these classes apart.',
  ]
  here, there = advice.only
  if here + there == 0 or stats.binomtest(here, here + there).pvalue >= 0.05:
    lines.append(
      f'  It is a close call: {here} examples are right in the first way alone, {there} in the '
      'second alone,'
    )
    lines.append('  which may be chance (sign test, 5%).')
  return [*lines, '  A rule of thumb, not a law: docs/scores.md has how it did on trial.']


_COLUMNS = (
  'frozen: how many groups of stages are kept as the source has them, up to this one',
  'neighbours: share of examples whose nearest other example has their class (1 is best)',
  'gradient: how much a group of stages is asked to change, for its size; more asks for training',
  "told apart: how well the source's data and yours are told apart here (0 not at all, 2 always)",
  'alike: whether they vary along the same directions here (CKA of covariances; 1 is the same)',
)


def test_of(config: Mapping[str, Any], found: list[Advice], name: str) -> str:
  """A config file, complete in itself, that tests the advice: from scratch, everything tuned,
  LP-FT, what each run is advised, half frozen, all frozen and an adapter, on the data, sizes and
  seeds of the study that was given.

  Heads and adapters alone are tried at ten times its rates, and so is what is advised where that
  is heads alone for most.
  """
  given, default = _without_claims(config), configs.base().to_dict()
  half = min(len(advice.groups) for advice in found) // 2
  rates = tuple(10 * rate for rate in given['grid']['learning_rate'])
  probe = {'phases': ({'tune': {'policy': 'last', 'k': 1}},), 'grid': {'learning_rate': rates}}
  probes = sum(advice.depth == len(advice.groups) - 1 for advice in found)
  own = {'grid': probe['grid']} if probes > len(found) / 2 else {}
  head = {'tune': 'head', 'learning_rate': rates[len(rates) // 2]}
  fields = {
    **{field: value for field, value in given.items() if value != default[field]},
    'name': f'Advice tested: {given["name"]}',
    'methods': {
      'scratch': {'init': 'random', 'phases': ({'tune': 'all'},)},
      'tune_all': {'phases': ({'tune': 'all'},)},
      'lp_ft': {'phases': (head, {'tune': 'all'})},
      'advised': {'phases': ({'tune': 'advised'},), **own},
      'freeze_half': {'phases': ({'tune': {'policy': 'after', 'k': half}},)},
      'freeze_all': probe,
      'lora': {
        'added': {'name': 'lora', 'rank': 8, 'alpha': 16.0, 'at': '.'},
        'phases': ({'tune': 'added'},),
        'grid': {'learning_rate': rates},
      },
    },
    'baseline': 'scratch',
  }
  lines = [f'  config.{field} = {_literal(value)}' for field, value in fields.items()]
  advised = '\n'.join(f'  {advice.source} -> {advice.target}: {_short(advice)}' for advice in found)
  return _FILE.format(
    study=command.spelled('study'),
    name=shlex.quote(name),
    advised=advised,
    lines='\n'.join(lines),
  )


def _literal(value: Any) -> str:
  return pprint.pformat(value, width=92, sort_dicts=False).replace('\n', '\n  ')


def _short(advice: Advice) -> str:
  if advice.depth is None:
    return 'lp_ft, for want of evidence'
  deepest = advice.depth == len(advice.groups) - 1
  return 'freeze_all, then lora' if deepest else 'tune_all or lp_ft'


_FILE = '''"""Tests advice on what to freeze. What was advised:

{advised}

  {study} --config={name} --workdir=DIR
"""

from tlx.study.config import base


def get_config():
  config = base()
{lines}
  return config
'''
