"""Weights & Biases: a run for each, in the project that WANDB_PROJECT names, else the folder's."""

import hashlib
import os

from etils import epath

from tlx.trackers import _points


def check() -> None:
  """Raises ValueError where the package that speaks to it is not installed."""
  _points.want('wandb', 'wandb')


def write(workdir: epath.Path, runs: list[str]) -> None:
  """A run each, under an id of its own, so that it is there once; steps that it has are not sent
  again, test columns are its summary's.
  """
  import wandb

  for run in _points.read(workdir, runs):
    known_as = hashlib.sha256(f'{os.path.abspath(workdir)} {run.name}'.encode())
    with wandb.init(
      project=os.environ.get('WANDB_PROJECT', workdir.name),
      group=workdir.name,
      name=run.name,
      id=known_as.hexdigest()[:16],
      config=dict(run.cell),
      dir=None if '://' in os.fspath(workdir) else os.fspath(workdir),
      resume='allow',
      reinit='finish_previous',
    ) as there:
      begun = there.step
      for step, values in run.points:
        if step >= begun:
          there.log(values, step=step)
      there.summary.update(run.test)
