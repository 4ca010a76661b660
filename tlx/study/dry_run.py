"""What a study would run, as text."""

import itertools
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy.special
from etils import epath

from tlx import checkpoint, tree
from tlx import inputs as forms
from tlx.study import config as configs
from tlx.study import evaluation, merges, presets, run, zero_shot
from tlx.study.cells import PRETRAINING, base, counts_of, examples_of, settings_of
from tlx.study.cohorts import cohorts_of
from tlx.study.config import form_of
from tlx.study.cost import (
  cost_table,
  frozen_flops,
  input_share,
  phases_for,
  room_of,
  same_methods,
)
from tlx.study.pair import load, near_copies
from tlx.study.phases import network_of, shapes_of, task_of
from tlx.study.stages import network_of_source
from tlx.train import lengths, prefix
from tlx.types import Form, Network, Variables


def compiled(config: Mapping[str, Any]) -> str:
  """A line a program that the study would compile, compiled: seconds, and megabytes on each
  device while it runs; then what is nearly the same in two parts of the data, and how much of texts
  is padding.

  The persistent cache holds them from then on. Raises ValueError as the study would.
  """
  rows = run.compile_ahead(config)
  width = max([len(row['cohort']) for row in rows], default=0)
  lines = [
    (
      f'{row["cohort"]:<{width}}  phase {row["phase"]}  {row["seconds"]:6.1f} s  '
      f'{row["bytes"] / 1e6:10,.1f} MB'
    )
    for row in rows
  ]
  return '\n'.join(
    [
      *lines,
      f'{len(rows)} programs compiled in {sum(row["seconds"] for row in rows):.1f} s; at '
      f'most {max([row["bytes"] for row in rows], default=0) / 1e6:,.0f} MB on a device.',
      *_near_copies(configs.resolve(config)),
      *_padding(configs.resolve(config)),
    ]
  )


def _near_copies(study: Mapping[str, Any]) -> list[str]:
  """A line a target and pair of its parts; sources of one form see the same."""
  notes = [
    f'{target}: {note}'
    for source in study['sources']
    for target in study['targets']
    for note in near_copies(study, source, target)
  ]
  return list(dict.fromkeys(notes))


def _padding(study: Mapping[str, Any]) -> list[str]:
  """A line a source and target of texts, of the training examples: the lengths to which texts are
  cut where frozen stages run over them once, and the shares of padding.
  """
  notes = []
  for source, target in itertools.product(study['sources'], study['targets']):
    inputs = load(study, study['targets'][target], study['sources'][source]).train.inputs
    of = lengths.num_tokens(inputs)
    if of is None:
      continue
    network, _ = network_of_source(study, source)
    shapes = shapes_of(study['sources'][source], network)
    form = forms.of_stored(form_of(study['sources'][source]), inputs)
    frozen = {stage: shapes.params.get(stage, {}) for stage in network.stages[:-1]}
    shapes = Variables(frozen, shapes.stats)
    size = prefix.batch_size(network, form, shapes, len(of), jax.device_count())
    width, flops = inputs['mask'].shape[-1], prefix.flops_of_a_token(frozen)
    made = lengths.batches(of, len(of), size, width, flops)
    notes.append(f'{source}/{target}, frozen stages: {lengths.said(of, made, size, width)}')
  return notes


def describe(config: Mapping[str, Any], workdir: str | os.PathLike = '') -> str:
  """A line a cohort: runs, programs, steps, trained parameters, FLOPs and memory; then the totals
  and what to know before it runs.

  Args:
    workdir: of finished runs, whose spread says what difference the planned seeds could show.

  Raises:
    ValueError: what is wrong with the config.
  """
  study = configs.resolve(config)
  cohorts = cohorts_of(study)
  evaluation.check(study)
  zero_shot.check(study)
  merges.check(study)
  rows = cost_table(study, cohorts)
  formats = {
    'cohort': '{}',
    'runs': '{}',
    'phases': '{}',
    'new programs': '{}',
    'steps': '{:.0f}',
    'trained': '{:,}',
    'share': '{:.1%}',
    'reused': '{}',
    'stages': '{}',
    'GFLOP': '{:,.1f}',
    'evaluation': '{:,.1f}',
    'MB': '{:,.1f}',
  }
  cells = [
    list(formats),
    *([_formatted(form, row[name]) for name, form in formats.items()] for row in rows),
  ]
  widths = [max(len(line[i]) for line in cells) for i in range(len(formats))]
  lines = [
    '  '.join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(line, widths))
    )
    for line in cells
  ]
  total = {
    name: sum(row[name] for row in rows) for name in ('runs', 'new programs', 'GFLOP', 'evaluation')
  }
  lines.append(
    f'{total["runs"]} runs in {len(rows)} cohorts, {total["new programs"]} training programs '
    f'to compile, {_formatted("{:,.0f} GFLOP", total["GFLOP"])} of training and '
    f'{_formatted("{:,.0f} GFLOP", total["evaluation"])} of evaluation (validation, and test '
    f'of chosen runs); at most {max(row["MB"] for row in rows):,.0f} MB of parameters, '
    'gradients and optimizer state at a time.'
  )
  pairs = list(dict.fromkeys(cohort.cells[0][:2] for cohort in cohorts))
  notes = [
    *filter(None, [presets.described(study)]),
    *_frozen(study, pairs),
    *_not_kept(study, pairs),
    *_settings(study),
    *_merges(study),
    *_same_methods(study, pairs),
    *_inputs(study),
    *_data(study, pairs),
    _power(study, workdir),
  ]
  return '\n'.join([*lines, *notes])


def _formatted(form: str, value: Any) -> str:
  return 'not known yet' if value != value else form.format(value)


def _frozen(study: Mapping[str, Any], pairs: list[tuple[str, str]]) -> list[str]:
  """What is spared by running frozen stages once for every example."""
  costs = [frozen_flops(study, *pair) for pair in pairs]
  known = [cost for cost in costs if cost is not None]
  lines = []
  if once := sum(cost.once for cost in known):
    lines.append(
      'Stages that stay frozen (reused: how many, phase by phase) run once for every '
      f'example: {once / 1e9:,.1f} GFLOP instead of '
      f'{sum(cost.instead for cost in known) / 1e9:,.1f}.'
    )
  if len(known) < len(costs):
    unknown = ', '.join(
      dict.fromkeys(target for (_, target), cost in zip(pairs, costs) if cost is None)
    )
    lines.append(
      f'What frozen stages spare on {unknown} is not known yet: the data have not been prepared.'
    )
  return lines


def _not_kept(study: Mapping[str, Any], pairs: list[tuple[str, str]]) -> list[str]:
  """The methods whose frozen stages would run once if more could be kept of them."""
  lines = []
  for source, target in pairs:
    examples = examples_of(study, target)
    if examples is None or not study['reuse']:
      continue
    head, form = task_of(study, study['targets'][target]).head, form_of(study['sources'][source])
    networks = {
      name: network_of(study['sources'][source], head, method)
      for name, method in study['methods'].items()
    }
    phases = [phase for method in study['methods'].values() for phase in method['phases']]
    views = max([phase['views'] for phase in phases], default=0)
    if all(_fits(study, network, form, examples, views) for network in {*networks.values()}):
      continue
    kept, all_kept = (
      phases_for({**study, 'feature_bytes': room}, source, target)
      for room in (study['feature_bytes'], math.inf)
    )
    wanted: dict[str, int] = {}
    for name, plans in all_kept.items():
      network = networks[name]
      deeper = [
        max(1, plan.phase.views)
        * tree.num_bytes(prefix.activation(network, form, plan.phase.start))
        for plan, now in zip(plans, kept[name])
        if plan.phase.start > now.phase.start
      ]
      wanted |= {name: max(deeper) * sum(examples.values())} if deeper else {}
    if wanted:
      lines.append(
        f'{", ".join(wanted)} from {source} on {target} run frozen stages at every step: kept of '
        f'{sum(examples.values()):,} examples, these would take more than config.feature_bytes = '
        f'{study["feature_bytes"]:.3g}. With {1.005 * max(wanted.values()):.3g} they run once.'
      )
  return lines


def _fits(
  study: Mapping[str, Any], network: Network, form: Form, examples: Mapping[str, int], views: int
) -> bool:
  """Whether what enters any stage of a network may be kept."""
  stages = range(1, len(network.stages))
  largest = max(tree.num_bytes(prefix.activation(network, form, i)) for i in stages)
  return max(1, views) * largest <= room_of(study, examples)


def _settings(study: Mapping[str, Any]) -> list[str]:
  """The methods that try fewer settings than they declare."""
  lines = []
  for name, method in study['methods'].items():
    if method.get('merge'):
      continue
    tried, declared = (
      len(settings_of(method)),
      len(method['grid']['learning_rate']) * len(method['grid']['weight_decay']),
    )
    if tried < declared:
      lines.append(
        f'{name} tries {tried} of the {declared} settings that its grid declares: no phase '
        'takes the learning rate of the grid.'
      )
  if most := study['grid']['extend']:
    lines.append(
      f'Where the best rate lies at the edge of its grid, up to {most} more are tried for '
      'that method and size (grid.extend); they are not in the table.'
    )
  return lines


def _merges(study: Mapping[str, Any]) -> list[str]:
  """What is made of which runs, and what that costs beside them."""
  words = {
    'run': 'the chosen run',
    'settings': 'the runs with every setting',
    'seeds': 'the chosen runs of all seeds: one network for every seed',
    'targets': 'the chosen runs on every target',
  }
  lines = []
  for name, method in study['methods'].items():
    if merge := method.get('merge'):
      start = f' and of {merge["start"]}, where they start' if merge['start'] else ''
      lines.append(
        f'{name} takes no step: it is made ({merge["name"]}) of {words[merge["over"]]} of '
        f'{merge["of"]}{start}. Its results state what these cost.'
      )
  return lines


def _same_methods(study: Mapping[str, Any], pairs: list[tuple[str, str]]) -> list[str]:
  """The methods that are others under another name."""
  found: dict[tuple[str, ...], list[str]] = {}
  for source, target in pairs:
    for names in same_methods(study, source, target):
      found.setdefault(names, []).append(source)
  lines = []
  for names, where in found.items():
    alike = len({tuple(settings_of(study['methods'][name])) for name in names}) == 1
    lines.append(
      f'{" and ".join(names)} train the same parameters in the same '
      f'way{"" if alike else ", with other rates"} (source '
      f'{", ".join(dict.fromkeys(where))}).'
    )
  return lines


def _inputs(study: Mapping[str, Any]) -> list[str]:
  """Where weights get another input than they were trained on, and what a smaller one spares."""
  lines = []
  for name, source in study['sources'].items():
    own = configs.own_input(source)
    for field, value in source['input'].items():
      if own.get(field, value) not in (value, ''):  # '' is none, of what starts from nothing
        lines.append(
          f"config.sources.{name}.input.{field} is {value!r}; the weights' own is {own[field]!r}."
        )
    share = input_share(source, own) if own else 1.0
    if 0 < share < 1:
      lines.append(
        f"  Examples of this input cost {share:.0%} of what the weights' own would, and "
        'results may be worse.'
      )
  return lines


def _data(study: Mapping[str, Any], pairs: list[tuple[str, str]]) -> list[str]:
  """What the examples of the data sets take, and whether they lie in memory."""
  sets: dict[str, tuple[float, bool]] = {}  # the text of each: its bytes, whether it has to fit
  for source_name, target_name in pairs:
    source = study['sources'][source_name]
    form = configs.form_module(source)
    own = [source | PRETRAINING] if source['dataset'] else []
    for data in (*own, study['targets'][target_name]):
      count = sum(counts_of(study, data).values())
      example = tree.num_bytes(form_of(source).spec)
      said = f'{data["dataset"]} ({count:,} of {example:,} bytes)'
      if not count:
        said = f'{data["dataset"]} (not known yet)'
      sets[said] = count * example, not getattr(form, 'STREAMS', False)
  limit = study['data_bytes']
  large = [name for name, (size, fits) in sets.items() if not fits and size > limit]
  small = [name for name in sets if name not in large]
  lines = []
  if small:
    most = max(sets[name][0] for name in small)
    lines.append(
      f'Examples in memory: {", ".join(small)}; a data set takes {most / 1e6:,.1f} MB at most, '
      f'{limit / 1e6:,.0f} MB are allowed (config.data_bytes).'
    )
  for name in large:
    lines.append(
      f'Streamed: {name} takes {sets[name][0] / 1e6:,.1f} MB, more than the {limit / 1e6:,.1f} of '
      'config.data_bytes. Its images are decoded once to look at them all, and again whenever they '
      'are needed, ahead of the devices.'
    )
  return lines


def _power(study: Mapping[str, Any], workdir: str | os.PathLike) -> str:
  """What difference between two methods the planned seeds could show."""
  num_seeds = len(study['seeds'])
  if num_seeds < 2:
    return 'With one seed no difference between methods can be told from chance; take more seeds.'
  factor = detectable(num_seeds)
  shown = (
    f'With {num_seeds} seeds, paired differences to another method show (95% confidence, 80% '
    'power, before correction for many) from'
  )
  if not _of_accuracy(study):
    return f'{shown} {factor:.1f} times their standard deviation over seeds on.{_levels(study)}'
  spread = _spread(study, workdir) if workdir else float('nan')
  known = (
    ''
    if spread != spread
    else (
      f' In the finished runs they vary by {spread:.1f} (median): {factor * spread:.1f} points.'
    )
  )
  return (
    f'{shown} {factor:.1f} points on where they vary by 1 point (standard deviation over seeds), '
    f'{2 * factor:.1f} by 2 and {5 * factor:.1f} by 5.{known}{_levels(study)}'
  )


def _of_accuracy(study: Mapping[str, Any]) -> bool:
  """Whether accuracy chooses and is compared on every target: points are of percent."""
  targets = study['targets'].values()
  return {task_of(study, target).select[0] for target in targets} == {'accuracy'}


def _levels(study: Mapping[str, Any]) -> str:
  """What is not in `_power` where source seeds and folds vary too."""
  if not any(name != base(name) for name in (*study['sources'], *study['targets'])):
    return ''
  return (
    ' That is within one source seed and fold; differences over all of them hold what these '
    'vary too, and few levels of a factor say little: with two the interval over its means is '
    '12.7 standard errors to either side, with three 4.3, with five 2.8.'
  )


def detectable(num_seeds: int) -> float:
  """The mean of `num_seeds` paired differences, in standard deviations, that a two-sided t-test
  at 5% finds with probability 80%.

  >>> round(detectable(10), 2)  # as tables of the paired t-test have it
  1.0
  """
  freedom = num_seeds - 1
  critical = scipy.special.stdtrit(freedom, 0.975)
  # The shift of a noncentral t of which a fifth lies below the critical value.
  shift = scipy.special.nctdtrinc(freedom, 0.2, critical)
  return float(shift) / math.sqrt(num_seeds)


def _spread(study: Mapping[str, Any], workdir: str | os.PathLike) -> float:
  """The median over methods and sizes of the standard deviation, in points, of finished runs'
  differences to the baseline; else NaN.
  """
  scores: dict[tuple, dict[int, float]] = {}
  for path in epath.Path(workdir).glob('runs/*/result.json'):
    result = checkpoint.read_json(path)
    cell = result['cell']
    if result['chosen'] and result['test'] and cell['target'] in study['targets']:
      column, _ = task_of(study, study['targets'][cell['target']]).select
      names = (cell['source'], cell['target'], cell['shots'], cell['method'])
      scores.setdefault(names, {})[cell['seed']] = 100 * result['test'][column]
  found = []
  for (*where, method), own in scores.items():
    other = scores.get((*where, study['baseline']), {})
    differences = [own[seed] - other[seed] for seed in own if seed in other]
    if method != study['baseline'] and len(differences) > 1:
      found.append(float(np.std(differences, ddof=1)))
  return float(np.median(found)) if found else float('nan')
