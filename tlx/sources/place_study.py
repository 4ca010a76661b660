"""study:WORKDIR/RUN, a finished run of an earlier study; WORKDIR may be remote (gs://...)."""
from etils import epath

from tlx import checkpoint
from tlx.plug import closest


def find(rest: str) -> tuple[epath.Path, dict]:
  """(the run's folder, the study's name and the run's).

  Raises:
    ValueError: no study there, or no finished run of that name in it.
  """
  place, _, run = rest.rpartition('/')
  workdir = epath.Path(place).expanduser()
  if not place or not run or not (workdir / 'study.json').exists():
    raise ValueError(f'study:{rest}: wanted study:WORKDIR/RUN, and there is no study.json in {place or "(no folder)"!r}.')
  path = workdir / 'runs' / run
  if not (path / 'result.json').exists():
    done = sorted(file.parent.name for file in (workdir / 'runs').glob('*/result.json'))
    raise ValueError(f'study:{rest}: no finished run {run!r} in {place}.{closest(run, done)} It has {len(done)}: {", ".join(done[:4])}, ...')
  return path, {'study': checkpoint.read_json(workdir / 'study.json')['name'], 'run': run}
