"""Claims on seeds that nobody has looked at.

What a study found while its config was written is exploratory. `config.confirm` keeps seeds for
afterwards: the same study on them, chosen anew, in the folder `confirm` of its own. It is opened
once, and `opened.json` there says when and for which claims; others are refused from then on.
"""

import copy
import datetime
import os
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from tlx import checkpoint
from tlx.report.folder import CONFIRM, OPENED
from tlx.study import config as configs
from tlx.study import locks, store
from tlx.train import mesh as meshes


def opened(
  config: ml_collections.ConfigDict, workdir: os.PathLike | str
) -> tuple[ml_collections.ConfigDict, epath.Path]:
  """(the study on the seeds that it keeps for confirming, its folder), and writes down that these
  are open now.

  Raises:
    ValueError: the config keeps none, runs a part of what it states, or they were opened for other
      claims or other ways to choose.
  """
  study = configs.resolve(config)
  if not study['confirm']:
    raise ValueError(
      "--confirm wants seeds that were kept for it, such as config.confirm = {'seeds': (20, 21, "
      "22), 'source_seeds': (5, 6, 7)}."
    )
  for field in ('only', 'preset'):
    if study[field]:
      raise ValueError(f'--confirm runs the study as it is written; leave config.{field} out.')
  folder = store.place(workdir) / CONFIRM
  with locks.held(folder.parent, 'confirm', wait=True):
    meshes.on_first(lambda: _record(folder, study))
  return _confirming(config, study['confirm']), folder


def _confirming(config: ml_collections.ConfigDict, kept: Mapping[str, Any]) -> Any:
  """The config with the kept seeds in place of its own."""
  made = copy.deepcopy(config)
  made.seeds, made.confirm = kept['seeds'], {}
  for name, source in made.sources.items():
    if not isinstance(source, str) and source.get('dataset'):  # text names weights
      seeds = kept['source_seeds']
      made.sources[name] = {**source, 'seed': seeds[0], 'seeds': seeds}
  return made


def _record(folder: epath.Path, study: Mapping[str, Any]) -> None:
  """Writes what the seeds are opened for.

  Raises:
    ValueError: they were opened for something else.
  """
  stated = {
    'claims': study['claims'],
    'seeds': study['confirm'],
    'shots': study['shots'],
    'validation': study['validation'],
    'grids': {name: method['grid'] for name, method in study['methods'].items()},
    **{kind: list(study[kind]) for kind in ('sources', 'targets', 'methods')},
  }
  path = folder / OPENED
  # Without a run of it nothing was seen: what is wrong with data or folders may be mended.
  if path.exists() and (folder / 'study.json').exists():
    before = checkpoint.unsealed(path)
    if changes := store.changes(before['stated'], stated):
      raise ValueError(
        '\n'.join(
          [
            f'The seeds for confirming were opened on {before["opened"]} for other claims:',
            *changes[:20],
            'Undo the change, or keep other seeds, which nobody looked at, for a new --workdir.',
          ]
        )
      )
    return
  folder.mkdir(parents=True, exist_ok=True)
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  checkpoint.write_json(path, checkpoint.sealed({'opened': now, 'stated': stated}))
