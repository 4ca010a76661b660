"""A run's folder in a study, <workdir>/runs/<run>: what the run trained, over what its source
holds, under our own names.
"""

import os
from pathlib import Path

import numpy as np
from etils import epath

from tlx import checkpoint, tree
from tlx.sources._budget import Budget
from tlx.sources._files import inside, remote
from tlx.sources._orbax import weigh


def matches(path: os.PathLike) -> bool:
  folder = epath.Path(path)
  return folder.parent.name == 'runs' and (folder / 'result.json').exists()


def read(path: os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
  """({'block1/conv/kernel': array, 'block1/norm/mean': array, ...}, {'stats': [the names of
  statistics], 'head': the last stage}).

  Raises:
    ValueError: a damaged checkpoint.
  """
  folder = epath.Path(path)
  if not remote(folder):
    Budget.of(Path(folder))  # result.json is a regular file
  workdir, result = folder.parent.parent, checkpoint.unsealed(folder / 'result.json')
  cohort = workdir / 'cohorts' / inside(result['cohort']) / 'checkpoints'
  _weigh(cohort)
  params, stats = trained(cohort, result['row'])
  if result['init'].startswith(('source', 'first_')):  # what it has from there is not saved twice
    source = workdir / 'sources' / inside(result['cell']['source']) / 'checkpoints'
    _weigh(source)
    for own, of_source in zip((params, stats), trained(source, 0)):
      for name, array in of_source.items():
        if name.split('/')[0] != result['head']:  # the head is the run's own
          own.setdefault(name, array)
  return params | stats, {'stats': sorted(stats), 'head': result['head']}


def _weigh(folder: epath.Path) -> None:
  """Raises ValueError where a checkpoint of a local study takes more than its files can hold."""
  if remote(folder) or not folder.exists():
    return
  budget = Budget.of(Path(folder))
  for step in checkpoint.steps(folder)[-1:]:
    try:
      with checkpoint.checkpointer() as checkpointer:
        found = checkpointer.metadata(folder.resolve() / str(step) / 'arrays').item_metadata
    except Exception:  # Orbax raises many kinds; loading it says that the checkpoint is damaged
      return
    if found is not None:
      weigh(found.tree, budget)


def digest(path: os.PathLike) -> str:
  """The sha256 of names and arrays as `read` gives them: whatever else the folder says."""
  return tree.sha256(read(path)[0])


def trained(folder: epath.Path, row: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """(params, stats) by name that the last checkpoint in `folder` holds for one of its runs.

  Raises:
    ValueError: there is no checkpoint, or it is damaged.
  """
  params: dict[str, np.ndarray] = {}
  stats: dict[str, np.ndarray] = {}
  groups = {'state/trainable/': params, 'frozen/': params, 'state/stats/': stats}
  for name, array in checkpoint.load(folder).items():
    for prefix, found in groups.items():
      if name.startswith(prefix):
        found[name.removeprefix(prefix)] = array[row]
  return params, stats
