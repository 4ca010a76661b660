"""Classes that weigh as they are rare among a run's own examples."""

import numpy as np
import pytest
from etils import epath
from sklearn.utils.class_weight import compute_class_weight

from tests.train.test_fit import assert_same
from tlx.tasks import classification
from tlx.train import fit
from tlx.train.job import class_weights

# Of 20 of each class: 20, 5 and 2; 3 and 18 and none of the third.
SUBSETS = (np.r_[0:20, 20:25, 40:42], np.r_[0:3, 22:40])
LABELS = np.repeat(np.arange(3), 20)


def job_of(make_job, phases, task, runs=(0, 1)):
  job = make_job(phases, (1e-2,) * len(runs), seeds=[3] * len(runs))
  plans = tuple(plan._replace(task=task) for plan in job.phases)
  return job._replace(phases=plans, examples=[SUBSETS[run] for run in runs])


def test_weights_are_those_of_scikit_learn(make_job, make_phase):
  task = classification.task(3, class_weights='balanced')
  found = class_weights(job_of(make_job, [make_phase()], task), 0)
  for weights, rows in zip(found, SUBSETS):
    labels = LABELS[rows]
    there = np.unique(labels)
    wanted = compute_class_weight('balanced', classes=there, y=labels)
    np.testing.assert_allclose(weights[there], wanted, rtol=1e-6)
    assert not weights[np.setdiff1d(np.arange(3), there)].any()


@pytest.mark.parametrize(
  'fields', [{}, {'augment': (('mixup', 0.4),)}, {'accumulate': 2, 'sam': 0.05}], ids=str
)
def test_a_cohort_of_unequal_subsets_trains_as_each_with_its_weights_written(
  make_job, make_phase, tmp_path, fields
):
  balanced = classification.task(3, class_weights='balanced')
  phase = make_phase(**fields)
  job = job_of(make_job, [phase], balanced)
  both = fit.fit(job, epath.Path(tmp_path / 'both'))
  plain = fit.fit(job_of(make_job, [phase], classification.task(3)), epath.Path(tmp_path / 'plain'))
  weights = class_weights(job, 0)
  for run in (0, 1):
    written = tuple(float(weight) or 1.0 for weight in weights[run])
    task = classification.task(3, class_weights=written)
    # Twice, so that it lies on the devices as in the cohort.
    alone = fit.fit(
      job_of(make_job, [phase], task, (run, run)), epath.Path(tmp_path / f'alone{run}')
    )
    ours, theirs, even = (
      [line['loss'][place] for line in fitted.progress['history']]
      for fitted, place in ((both, run), (alone, 0), (plain, run))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert not np.allclose(ours, even, rtol=1e-2)


def test_an_interrupted_run_keeps_its_weights(make_job, make_phase, tmp_path, monkeypatch):
  monkeypatch.setattr(fit, 'FIRST_STEPS', 3)
  job = job_of(make_job, [make_phase()], classification.task(3, class_weights='balanced'))
  whole = fit.fit(job, epath.Path(tmp_path / 'whole'))
  folder, calls = epath.Path(tmp_path / 'parts'), []
  with pytest.raises(KeyboardInterrupt):
    fit.fit(job, folder, say=lambda *_: calls.append(0), interrupted=lambda: len(calls) >= 2)
  assert_same(whole.own, fit.fit(job, folder).own)
