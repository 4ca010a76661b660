"""The range test: its losses are those that training has, its rates those that fastai reads."""

import math

import numpy as np
import pytest
from etils import epath

from tests.study import tiny
from tlx.study import lr_range, pair
from tlx.train import fit


@pytest.fixture(scope='module')
def written(data_dir):
  made = tiny.get_config()
  made.data_dir = str(data_dir)
  return made


def test_rates_are_those_that_fastai_reads():
  """Golden: fastai's recorder, `steep` and `minimum` over the same losses, in torch."""
  rates = np.geomspace(1e-6, 1.0, 50)
  raw = [
    2.0
    - 1.2 / (1 + math.exp(-2 * (math.log10(rate) + 3)))
    + 0.05 * math.sin(7 * i)
    + (0 if rate < 0.05 else (rate / 0.05) ** 3)
    for i, rate in enumerate(rates)
  ]
  both = np.stack([np.array(raw) - 0.3, np.array(raw) + 0.3])
  found = lr_range.read(rates, both, {'learning_rate': (0.1,)})
  assert len(found.smooth) == 45
  wanted = [1.997032852212038, 1.989535468257831, 8.042691981070165]
  np.testing.assert_allclose(found.smooth[[0, 10, -1]], wanted)
  assert math.isclose(found.steepest, 0.0062505519252739755)
  assert math.isclose(found.tenth, 0.004498432668969444)
  assert lr_range.draw({'one': found}, 'a -> b').startswith(b'\x89PNG')


def test_what_is_not_finite_ends_the_test():
  losses = np.linspace(2.0, 1.0, 40)[None].repeat(2, 0)
  losses[1, 30:] = np.nan
  found = lr_range.read(np.geomspace(1e-4, 1, 40), losses, {'learning_rate': ()})
  assert len(found.rates) == 30 and np.isfinite(found.smooth).all()
  losses[0, 2:] = np.inf
  with pytest.raises(ValueError, match='diverged after 2 of 40 steps.*begin with a lower'):
    lr_range.read(np.geomspace(1e-4, 1, 40), losses, {'learning_rate': ()})


def test_losses_are_those_of_training_with_a_rising_rate(written, finished, monkeypatch):
  """Also where examples come in windows. Test examples are not asked for; those of validation by
  the phase before, as ever.
  """
  workdir, _ = finished
  jobs, asked = [], []
  losses, arrays = fit.losses, pair.Pair.arrays

  def noted(job, folder):
    jobs.append(job)
    return losses(job, folder)

  def watched(self, split, *arguments):
    asked.append(split)
    return arrays(self, split, *arguments)

  monkeypatch.setattr(fit, 'losses', noted)
  monkeypatch.setattr(pair.Pair, 'arrays', watched)
  found = lr_range.find(written, ('lp_ft',), workdir=workdir, rates=(1e-4, 3e-2), steps=24)
  (test,) = found.values()
  assert test.losses.shape == (2, 24) and test.grid == (1e-3, 1e-2)
  np.testing.assert_allclose(test.rates[[0, -1]], [1e-4, 3e-2])
  (job,) = jobs
  assert set(asked) == {'train', 'val'}
  last = job.phases[-1]
  each = job._replace(phases=(job.phases[0], last._replace(evaluations=24)))
  fitted = fit.fit(each, epath.Path(str(workdir.parent / 'rising')))
  of_steps = [line['loss'] for line in fitted.progress['history'] if line['phase'] == 1]
  np.testing.assert_allclose(np.array(of_steps).T, test.losses, rtol=1e-5)
  tight = job._replace(device_bytes=20_000)
  again = losses(tight, epath.Path(str(workdir.parent / 'tight')))
  np.testing.assert_array_equal(again, test.losses)


@pytest.mark.parametrize(
  'arguments, said',
  [
    ({'methods': ('lpft',)}, r"config.methods has no 'lpft'.*Did you mean 'lp_ft'"),
    ({'methods': ('exact',)}, 'config.methods.exact ends without steps'),
    ({'methods': ('soup',)}, 'config.methods.soup is made of the runs of others'),
    ({'source': 'other'}, "config.sources has no 'other'; it has turned"),
    ({'shots': 3}, r'config.shots are \(1, 4\), got 3'),
    ({'rates': (1e-2, 1e-3)}, 'two numbers above 0 that rise'),
    ({'steps': 5}, 'at least 20 steps'),
    ({'methods': ('probe',)}, 'config.sources.turned is trained by the study itself'),
  ],
)
def test_what_cannot_be_tested_is_told(written, arguments, said):
  written = written.copy_and_resolve_references()
  written.methods.exact = {'phases': ({'tune': 'head', 'solver': 'logistic'},)}
  written.methods.soup = {'merge': {'name': 'mean', 'of': 'lp_ft'}}
  with pytest.raises(ValueError, match=said):
    lr_range.find(written, **arguments)
