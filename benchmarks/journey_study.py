"""The study of journey.py; its argument is the file of settings that journey.py writes for both
sides.
"""

import json
import pathlib

from tlx.study.config import base


def get_config(settings: str):
  """4 methods at every size and seed; every run takes the same steps."""
  given = json.loads(pathlib.Path(settings).read_text())
  config = base()
  config.name = f'journey {given["name"]}'
  config.sources.source = given['source']
  config.targets.images = {'dataset': f'folder:{given["data"]}'}
  config.methods = given['methods']
  config.shots, config.seeds = tuple(given['shots']), tuple(given['seeds'])
  config.train.batch_size, config.train.evaluations = given['batch_size'], 1
  config.train.optimizer, config.train.schedule = 'adamw', 'cosine'
  config.grid = {'learning_rate': (1e-3,), 'weight_decay': (given['weight_decay'],)}
  return config
