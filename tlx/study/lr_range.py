"""The learning-rate range test: a config's methods with a rate that rises step by step, and which
rates their loss speaks for (Smith 2017, section 3.3; as fastai's `lr_find` has it).
"""

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from tlx.plug import closest
from tlx.study import config as configs
from tlx.study import pair as pairs
from tlx.study.cells import cells_of
from tlx.study.cohorts import cohorts_of
from tlx.study.evidence import source_variables
from tlx.study.run import Source, job_of, source_of, start_of
from tlx.train import fit
from tlx.train.job import Job
from tlx.types import Cell

# As fastai: the share of its own past in the smoothed loss, the multiple of its least at which the
# test ends, and what is left out at both ends before a rate is read off.
SMOOTHING = 0.98
DIVERGED = 4.0
FIRST_SHARE, LAST_STEPS = 0.1, 5


class Found(NamedTuple):
  """The test of one method, up to the step at which the loss diverged.

  rates: [T]
  losses: [R, T], of each run's batch before its step at that rate, with the method's penalty
  smooth: [T], their mean over the runs, smoothed
  steepest: the rate at which that falls most a factor of the rate
  tenth: a tenth of the rate at which it is least, rates after divergence left out
  grid: the rates of the config
  """

  rates: np.ndarray
  losses: np.ndarray
  smooth: np.ndarray
  steepest: float
  tenth: float
  grid: tuple[float, ...]


def find(
  config: Mapping[str, Any],
  methods: Sequence[str] = (),
  source: str = '',
  target: str = '',
  workdir: str | os.PathLike = '',
  shots: int | None = None,
  rates: tuple[float, float] = (1e-6, 1.0),
  steps: int = 100,
) -> dict[str, Found]:
  """{method: its test} on one source and target, the first of the config where none is named.

  Of each method the last phase is tested, after those before as the config has them; with its
  optimizer, batches, layer decay and penalty, a run a seed. The rate of the phase rises from one of
  `rates` to the other in equal ratios. Training examples alone are looked at.

  Args:
    methods: all that the test can be made of, if none is named.
    workdir: the study's folder, where sources lie that the study trains itself.
    shots: one of the config's sizes; its largest, if None.

  Raises:
    ValueError: a name that the config does not have, a method whose last phase takes no steps of
      its own, rates that do not rise, or what a study raises.
  """
  study = configs.resolve(config)
  source = _named('sources', source, study)
  target = _named('targets', target, study)
  reasons = {name: _reason(method) for name, method in study['methods'].items()}
  for name in methods:
    if reasons[_named('methods', name, study)]:
      raise ValueError(f'config.methods.{name} {reasons[name]}: there is no rate to test.')
  names = tuple(methods) or tuple(name for name, reason in reasons.items() if not reason)
  shots = _shots(study['shots'], shots)
  if not names:
    raise ValueError('No method of config.methods ends with steps whose rate can be tested.')
  if not 0 < rates[0] < rates[1]:
    raise ValueError(f'rates are two numbers above 0 that rise, got {rates}.')
  if steps < 20:
    raise ValueError(f'A range test takes at least 20 steps, got {steps}.')
  only = {**study, 'sources': {source: study['sources'][source]}, 'shots': (shots,)}
  only |= {'targets': {target: study['targets'][target]}}
  only |= {'methods': {name: study['methods'][name] for name in names}}
  cohorts_of(only)
  variables = None
  if any(method['init'] != 'random' for method in only['methods'].values()):
    variables = source_variables(study, source, workdir)
  pretrained = source_of(study['sources'][source], variables) if variables else Source(None, '')
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    place = epath.Path(folder)
    pair = pairs.Pair(only, source, target, place)
    for name in names:
      job = _job(only, name, pretrained, pair, rates, steps)
      losses = fit.losses(job, place / name)
      found[name] = read(_rates(rates, steps), losses, only['methods'][name]['grid'])
  return found


def _named(kind: str, name: str, study: Mapping[str, Any]) -> str:
  """A name of the config's own, its first where none is asked for."""
  if name and name not in study[kind]:
    raise ValueError(
      f'config.{kind} has no {name!r}; it has {", ".join(study[kind])}.{closest(name, study[kind])}'
    )
  return name or next(iter(study[kind]))


def _reason(method: Mapping[str, Any]) -> str:
  """Why a method has no rate to test; '' where it has."""
  if method.get('merge'):
    return 'is made of the runs of others'
  if method.get('head'):
    return 'begins with a head of class names, which the test does not make'
  if not method['phases'] or method['phases'][-1]['solver'] != 'sgd':
    return 'ends without steps'
  return ''


def _shots(have: Sequence[int], wanted: int | None) -> int:
  """The size to test at; 0, which is all, is the largest."""
  if wanted is None:
    return 0 if 0 in have else max(have)
  if wanted not in have:
    raise ValueError(f'config.shots are {tuple(have)}, got {wanted}.')
  return wanted


def _job(
  study: Mapping[str, Any],
  name: str,
  pretrained: Source,
  pair: pairs.Pair,
  rates: tuple[float, float],
  steps: int,
) -> Job:
  """A run a seed with the first setting of the grid, whose last phase has a rate that rises."""
  first: dict[int, Cell] = {}
  for cell in cells_of(study):
    if cell.method == name:
      first.setdefault(cell.seed, cell)
  source = start_of(study['methods'][name]['init'], pretrained, pair.source)
  job = job_of(study, tuple(first.values()), source, pair)
  *before, last = job.phases
  least = ('least', rates[0] / rates[1])
  phase = last.phase._replace(
    schedule='exponential', schedule_options=(least,), warmup=0.0, ema=0.0
  )
  last = last._replace(
    phase=phase, num_steps=steps, epochs=0.0, learning_rate=rates[1], evaluations=1, best=0
  )
  return job._replace(phases=(*before, last)).timed()


def _rates(rates: tuple[float, float], steps: int) -> np.ndarray:
  return np.geomspace(*rates, steps)


def read(rates: np.ndarray, losses: np.ndarray, grid: Mapping[str, Any]) -> Found:
  """What the losses [R, T] at rising rates [T] speak for.

  fastai's `LRFinder`, `steep` and `minimum` (fastai 2, callback/schedule.py; Howard and Gugger
  2020). Departs from them in the mean over several runs, and in a cut where fewer steps than its
  own are left.

  Raises:
    ValueError: the loss is not finite from the first steps on.
  """
  mean = np.asarray(losses, np.float64).mean(0)
  whole = int(np.argmin(np.isfinite(mean))) if not np.isfinite(mean).all() else len(mean)
  smooth = smoothed(mean[:whole])
  if whole:
    over = smooth > DIVERGED * np.minimum.accumulate(smooth)
    whole = int(np.argmax(over)) + 1 if over.any() else whole
  first, last = int(FIRST_SHARE * len(mean)), whole - LAST_STEPS
  if last - first < 3:
    raise ValueError(
      f'The loss diverged after {whole} of {len(mean)} steps, at a rate of '
      f'{rates[max(whole - 1, 0)]:.3g}: begin with a lower one.'
    )
  looked, seen = rates[first:last], smooth[first:last]
  steepest = looked[np.argmin(np.diff(seen) / np.diff(np.log(looked)))]
  tenth = looked[np.argmin(seen)] / 10
  own = tuple(grid['learning_rate'])
  return Found(rates[:whole], losses[:, :whole], smooth[:whole], float(steepest), float(tenth), own)


def smoothed(losses: np.ndarray) -> np.ndarray:
  """The exponential moving average of each step, without the bias of its beginning at 0.

  >>> smoothed(np.array([3.0, 1.0])).round(4).tolist()  # (0.98 x 0.06 + 0.02) / (1 - 0.98^2)
  [3.0, 1.9899]
  """
  average, found = 0.0, []
  for i, loss in enumerate(losses):
    average = SMOOTHING * average + (1 - SMOOTHING) * loss
    found.append(average / (1 - SMOOTHING ** (i + 1)))
  return np.array(found)


def draw(found: Mapping[str, Found], title: str) -> bytes:
  """A PNG: for each method its losses against the rate, smoothed, with both rates that they speak
  for and those of the config.
  """
  columns = min(3, len(found))
  rows = -(-len(found) // columns)
  figure = Figure(figsize=(4.2 * columns, 2.9 * rows + 0.5))
  axes = figure.subplots(rows, columns, squeeze=False).ravel()
  for ax, (name, test) in zip(axes, found.items()):
    ax.plot(test.rates, test.losses.T, color='0.8', linewidth=0.6)
    ax.plot(test.rates, test.smooth, color='C0')
    ax.axvline(test.steepest, color='C1', label=f'steepest {test.steepest:.1e}')
    ax.axvline(test.tenth, color='C2', label=f'least / 10 {test.tenth:.1e}')
    for rate in test.grid:
      if test.rates[0] <= rate <= test.rates[-1]:
        ax.axvline(rate, color='0.4', linestyle=':', linewidth=1)
    low, high = np.min(test.smooth), max(test.smooth[0], np.median(test.smooth))
    ax.set_ylim(low - 0.2 * (high - low), high + 0.6 * (high - low))
    ax.set_xscale('log')
    ax.set_title(name, fontsize=9)
    ax.legend(fontsize=7, loc='upper left')
  for ax in axes[len(found) :]:
    ax.remove()
  figure.supxlabel('learning rate (dotted: those of the config)', fontsize=9)
  figure.supylabel('training loss', fontsize=9)
  figure.suptitle(title, fontsize=10)
  figure.tight_layout()
  picture = io.BytesIO()
  figure.savefig(picture, format='png', dpi=130)
  return picture.getvalue()
