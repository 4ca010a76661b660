"""MLflow: a run for each, in an experiment of the folder's name, where MLFLOW_TRACKING_URI says."""

import os
import time

from etils import epath

from tlx.trackers import _points

TAG = 'tlx.run'  # folder and run


def check() -> None:
  """Raises ValueError where the package that speaks to it is not installed, or nothing answers."""
  _points.want('mlflow', 'mlflow')
  import mlflow

  try:
    mlflow.MlflowClient().search_experiments(max_results=1)
  except Exception as error:  # of its server, its database, or what these want
    where = mlflow.get_tracking_uri()
    raise ValueError(
      f'--mlflow: {where} does not serve ({error}). Set MLFLOW_TRACKING_URI to a server.'
    ) from None


def write(workdir: epath.Path, runs: list[str]) -> None:
  """A run each, with the fields of its cell as parameters. What was there of it is deleted."""
  import mlflow
  from mlflow.entities import Metric, Param

  client = mlflow.MlflowClient()
  there = client.get_experiment_by_name(workdir.name)
  experiment = there.experiment_id if there else client.create_experiment(workdir.name)
  for run in _points.read(workdir, runs):
    known_as = f'{os.path.abspath(workdir)}/{run.name}'
    for old in client.search_runs([experiment], f"tags.`{TAG}` = '{known_as}'"):
      client.delete_run(old.info.run_id)
    now = int(time.time() * 1000)
    end = run.points[-1][0] if run.points else 0
    metrics = [
      Metric(tag, value, now, step)
      for step, values in (*run.points, (end, run.test))
      for tag, value in values.items()
    ]
    new = client.create_run(experiment, run_name=run.name, tags={TAG: known_as}).info.run_id
    client.log_batch(new, params=[Param(name, str(value)) for name, value in run.cell.items()])
    for first in range(0, len(metrics), 1000):  # as many as one request takes
      client.log_batch(new, metrics[first : first + 1000])
    client.set_terminated(new)
