"""study:WORKDIR/RUN, a finished run of an earlier study; WORKDIR may be remote (gs://...)."""

from pathlib import Path

from etils import epath

from tlx import checkpoint
from tlx.plug import closest
from tlx.sources._budget import brief
from tlx.sources._files import files, remote


def find(rest: str) -> tuple[epath.Path, dict]:
  """(the run's folder, the study's name and the run's).

  Raises:
    ValueError: no study there, or no finished run of that name in it.
  """
  place, _, run = rest.rpartition('/')
  try:
    workdir = epath.Path(place).expanduser()
    there = bool(place and run) and (workdir / 'study.json').exists()
  except ImportError as error:  # of the package that reads buckets
    raise ValueError(f'study:{brief(rest)} cannot be read: {error}') from error
  if not there:
    raise ValueError(
      f'study:{brief(rest)}: wanted study:WORKDIR/RUN, and there is no study.json in '
      f'{brief(place) or "(no folder)"!r}.'
    )
  path = workdir / 'runs' / run
  if not (path / 'result.json').exists():
    done = sorted(file.parent.name for file in (workdir / 'runs').glob('*/result.json'))
    raise ValueError(
      f'study:{rest}: no finished run {run!r} in {place}.{closest(run, done)} It has {len(done)}: '
      f'{", ".join(done[:4])}, ...'
    )
  if not remote(workdir):
    files(Path(workdir / 'study.json'))  # raises where it is no regular file
  return path, {'study': checkpoint.read_json(workdir / 'study.json')['name'], 'run': run}
