"""What MLflow knows of a run, in its store of files."""

import pytest

from tlx.trackers import mlflow as tracker


def test_a_run_is_there_once(workdir, tmp_path, monkeypatch):
  monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
  mlflow = pytest.importorskip('mlflow', reason="needs it: pip install 'tlx-jax[mlflow]'")
  mlflow.set_tracking_uri((tmp_path / 'store').as_uri())
  tracker.check()
  for _ in range(2):
    tracker.write(workdir, ['full-seed0'])
  client = mlflow.MlflowClient()
  experiment = client.get_experiment_by_name('mine')
  (run,) = client.search_runs([experiment.experiment_id])
  assert run.info.run_name == 'full-seed0' and run.data.params == {'method': 'full'}
  assert run.info.status == 'FINISHED'
  found = client.get_metric_history(run.info.run_id, 'val/accuracy')
  assert [(metric.step, metric.value) for metric in found] == [(2, 0.25), (4, 0.5)]
  (test,) = client.get_metric_history(run.info.run_id, 'test/accuracy')
  assert (test.step, test.value) == (4, 0.75)
