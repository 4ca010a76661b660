"""A small language model that the study trains on one text, carried to others.

DATA is text:SOURCE,text:TARGET,... : files of a document a line (.txt, .jsonl; also .gz), or
folders of train, val and test.

Claim: bytes of a neighbour's text are cheaper for a model that knows the source than for one that
begins anew, and the less text there is the more so. A claim about families of languages wants a
second source beside it: any text of the same script helps.

  python -m experiments.study --config=configs/text_to_text.py:text:es.txt,text:ca.txt,text:fi.txt \
    --workdir=runs/texts

Bits per byte flatter scripts with many multi-byte letters; compare languages by
test_bits_per_character. Sizes are in rows of 64 bytes. Four minutes on two cores.
"""

import re

from tlx.study.config import base

MODEL = {
  'name': 'gpt2',
  'vocab_size': 259,  # bytes and three special tokens
  'dim': 128,
  'depth': 2,
  'heads': 4,
  'max_positions': 64,
}


def get_config(data: str = 'text:source.txt,text:target.txt'):
  """4 methods x 2 sizes x 2 seeds for each target."""
  config = base()
  source, *targets = data.split(',')
  config.name = f'From {source} to {len(targets)} other texts'
  config.claim = 'A model of the source text makes the bytes of its neighbours cheaper.'
  config.sources.source = {
    'backbone': MODEL,
    'input': {'length': 64, 'tokenizer': 'bytes'},
    'dataset': source,
    'task': 'language',
    'train': {'steps': 1000, 'batch_size': 16, 'learning_rate': 2e-3, 'warmup': 0.05},
  }
  for i, target in enumerate(targets):
    name = re.sub(r'\W', '_', target.rsplit('/', 1)[-1].split('.')[0]) or f'target{i}'
    config.targets[name] = {'dataset': target, 'task': 'language'}
  config.shots = (100, 0)
  config.seeds = (0, 1)
  config.train.steps = 200
  config.train.batch_size = 8
  config.train.evaluations = 4
  config.train.warmup = 0.05
  config.grid.learning_rate = (2e-3,)
  config.methods = {
    'scratch': {'init': 'random', 'phases': [{'steps': 400}]},
    'last_block': {'phases': [{'tune': {'policy': 'last', 'k': 2}}]},
    'lora': {
      'added': {'name': 'lora', 'rank': 8},
      'phases': [{'tune': 'added', 'learning_rate': 1e-2}],
    },
    'full': {'phases': [{'tune': 'all'}]},
  }
  config.baseline = 'scratch'
  return config
