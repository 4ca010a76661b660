"""What a study hands to its cohorts and makes of their ends: each test was seen to fail once."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from tests.study import tiny
from tlx.study import record, run
from tlx.train import fit
from tlx.types import Cell

ACCURACY = ('accuracy', +1)


@pytest.fixture(scope='module')
def jobs(data_dir, tmp_path_factory):
  """({cohort: its job}, folder) of a study of two seeds, two sizes and four settings."""
  made = tiny.get_config(steps='3')
  made.data_dir = str(data_dir)
  made.methods = {'scratch': {'init': 'random'}, 'probe': {'phases': ({'tune': 'head'},)}}
  made.seeds, made.train.optimizer, made.grid.weight_decay = (3, 5), 'adamw', (0.0, 0.1)
  seen, real = {}, fit.fit

  def spy(job, folder, *arguments, **options):
    seen[folder.parent.name] = job
    return real(job, folder, *arguments, **options)

  workdir = tmp_path_factory.mktemp('jobs')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fit, 'fit', spy)
    run.run(made, workdir)
  return seen, workdir


def results(workdir, cohort):
  """The results of a cohort's runs, in the order of its rows."""
  found = [json.loads(path.read_text()) for path in (workdir / 'runs').glob('*/result.json')]
  return sorted(
    (result for result in found if result['cohort'] == cohort), key=lambda result: result['row']
  )


@pytest.mark.parametrize('method', ['scratch', 'probe'])
def test_every_run_is_trained_as_its_cell_says(jobs, method):
  seen, workdir = jobs
  job, cells = (
    seen[f'turned-digits-{method}'],
    [result['cell'] for result in results(workdir, f'turned-digits-{method}')],
  )
  assert len(cells) == 16
  assert list(job.seeds) == [cell['seed'] for cell in cells]
  assert list(job.learning_rates) == [cell['learning_rate'] for cell in cells]
  assert list(job.weight_decays) == [cell['weight_decay'] for cell in cells]
  subsets = {}
  for cell, rows in zip(cells, job.examples, strict=True):
    assert len(rows) == len(set(rows)) == 10 * cell['shots']
    subsets.setdefault((cell['seed'], cell['shots']), set()).add(tuple(sorted(rows)))
  assert all(len(found) == 1 for found in subsets.values())
  assert len(set.union(*subsets.values())) == 4


@pytest.mark.parametrize('method, num_kernels', [('scratch', 3), ('probe', 1)])
def test_seeds_begin_apart_and_settings_of_a_seed_alike(jobs, method, num_kernels):
  job = jobs[0][f'turned-digits-{method}']
  kernels = [leaf for leaf in jax.tree.leaves(job.own) if leaf.ndim == 3]
  assert len(kernels) == num_kernels
  for leaf in kernels:
    for one, first in zip(leaf, job.seeds):
      for other, second in zip(leaf, job.seeds):
        assert np.array_equal(one, other) if first == second else np.mean(one == other) < 0.01


def test_a_source_is_tested_on_three_tenths_of_an_undivided_set(data_dir, tmp_path):
  for i, image in enumerate(
    np.random.default_rng(0).integers(0, 255, (100, 8, 8)).astype(np.uint8)
  ):
    path = tmp_path / 'images' / f'class{i % 2}' / f'{i}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
  made = tiny.get_config(steps='2')
  made.data_dir = str(data_dir)
  made.sources.turned.dataset = f'folder:{tmp_path / "images"}'
  made.methods, made.shots = {'scratch': {'init': 'random'}}, (1,)
  run.run(made, tmp_path / 'study')
  result = json.loads((tmp_path / 'study' / 'sources' / 'turned' / 'result.json').read_text())
  assert result['test']['count'] == pytest.approx(30, abs=2)


def outcomes_of(**settings):
  """{cell: outcome} of one size from {setting: (accuracy, loss[, status]) of each seed}."""
  rates = {'low': 1e-3, 'high': 1e-1}
  found = {}
  for name, values in settings.items():
    for seed, (accuracy, loss, *status) in enumerate(values):
      cell = Cell('s', 't', 'm', 4, seed, rates[name], 0.0)
      found[cell] = {
        'status': status[0] if status else 'ok',
        'val': {'accuracy': accuracy, 'loss': loss, 'count': 10},
      }
  return found


def chosen(**settings):
  found = record.choose(outcomes_of(**settings), ACCURACY)
  (rate,) = {cell.learning_rate for cell in found}
  assert len(found) == len(settings['low'])
  return {1e-3: 'low', 1e-1: 'high'}[rate]


@pytest.mark.parametrize('first, second', [('low', 'high'), ('high', 'low')])
def test_settings_are_chosen_by_their_mean_over_seeds(first, second):
  """Not by their best seed, nor by their worst, nor by the first."""
  assert (
    chosen(
      **{
        first: [(0.95, 1.0), (0.50, 1.0), (0.50, 1.0)],
        second: [(0.70, 1.0), (0.70, 1.0), (0.70, 1.0)],
      }
    )
    == second
  )
  assert (
    chosen(
      **{
        first: [(0.40, 1.0), (0.90, 1.0), (0.90, 1.0)],
        second: [(0.70, 1.0), (0.70, 1.0), (0.70, 1.0)],
      }
    )
    == first
  )
  assert (
    chosen(**{first: [(0.5, 0.1), (0.7, 2.0)], second: [(0.6, 1.0), (0.6, 1.0)]}) == second
  )  # equal means: the lower mean loss
  assert (
    chosen(**{first: [(0.6, 0.1)], second: [(0.7, 9.0)]}) == second
  )  # the loss decides nothing else


@pytest.mark.parametrize('first, second', [('low', 'high'), ('high', 'low')])
@pytest.mark.parametrize(
  'loss, status',
  [(0.1, 'diverged at step 3'), (0.1, 'not solved'), (None, 'not finite after step 3')],
)
def test_a_setting_with_an_unusable_run_is_not_chosen(first, second, loss, status):
  """However good its other runs are; those that have a loss are compared where none is better."""
  good, poor = [(0.9, 0.1), (0.9, loss, status)], [(0.2, 2.0), (0.2, 2.0, 'diverged at step 9')]
  assert chosen(**{first: good, second: [(0.2, 2.0), (0.2, 2.0)]}) == second
  assert chosen(**{first: good, second: poor}) == (second if loss is None else first)


def test_where_no_setting_has_numbers_none_is_chosen():
  broken = [(0.9, None, 'not finite after step 3')]
  assert record.choose(outcomes_of(low=broken, high=broken), ACCURACY) == set()


def test_every_size_chooses_for_itself():
  outcomes = outcomes_of(low=[(0.5, 1.0)], high=[(0.6, 1.0)])
  larger = {
    cell._replace(shots=8): value
    for cell, value in outcomes_of(low=[(0.9, 1.0)], high=[(0.8, 1.0)]).items()
  }
  assert {
    (cell.shots, cell.learning_rate) for cell in record.choose(outcomes | larger, ACCURACY)
  } == {
    (4, 1e-1),
    (8, 1e-3),
  }
