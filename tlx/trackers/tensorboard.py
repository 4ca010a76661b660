"""TensorBoard's event files, by tensorboardX: WORKDIR/tensorboard/RUN."""

from etils import epath

from tlx.trackers import _points


def check() -> None:
  """Raises ValueError where the package that writes them is not installed."""
  _points.want('tensorboardX', 'tensorboard')


def write(workdir: epath.Path, runs: list[str]) -> None:
  """An event file a run. What was there of a run is replaced."""
  from tensorboardX import SummaryWriter

  for run in _points.read(workdir, runs):
    folder = epath.Path(workdir) / 'tensorboard' / run.name
    if folder.exists():
      folder.rmtree()
    end = run.points[-1][0] if run.points else 0
    with SummaryWriter(str(folder)) as writer:
      for step, values in (*run.points, (end, run.test)):
        for tag, value in values.items():
          writer.add_scalar(tag, value, step)
