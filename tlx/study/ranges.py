"""What every field of a config may hold: one table."""

from collections.abc import Mapping

from tlx.ranges import (
  CLAIMS,
  FIELDS,
  NOT_NEGATIVE,
  PHASES,
  PLUGIN,
  PLUGINS,
  POSITIVE,
  STAGE,
  SWITCH,
  TEXT,
  TEXTS,
  Each,
  Kind,
  Range,
)

MOST_STEPS = 2**24  # float32 counts no further
MOST_EXAMPLES = 2**30  # of a phase, over its steps: their order is kept in memory
COUNT = Range(0, 2**31 - 1)
BYTES = Range(0.0, 1e18)
SHARE = Range(0.0, 1.0, above=True, below=True)
SEED = Range(0, 2**32 - 1)  # seeds that differ by 2^32 begin alike

DATA: Mapping[str, Kind] = {  # of sources and targets
  'dataset': TEXT,
  'shift': TEXT,
  'group': TEXT,
  'duplicates': ('keep', 'drop'),
  'task': PLUGIN,
  'answers': TEXT,
  'skip_bad': SWITCH,
}
RANGES: Mapping[str, Mapping[str, Kind]] = {
  'train': {
    'tune': PLUGIN,
    'steps': Range(0, MOST_STEPS),
    'epochs': Range(0.0, 1e6),
    'batch_size': Range(1, 2**16),
    'optimizer': PLUGIN,
    'schedule': PLUGIN,
    'warmup': Range(0.0, 1.0, below=True),
    'learning_rate': NOT_NEGATIVE,
    'rates': FIELDS,
    'layer_decay': Range(0.0, 10.0, above=True),
    'clip_norm': NOT_NEGATIVE,
    'norm': ('frozen', 'live'),
    'augment': FIELDS,
    'label_smoothing': Range(0.0, 1.0, below=True),
    'loss': PLUGIN,
    'evaluations': Range(1, 100_000),
    'solver': ('sgd', 'logistic', 'ridge'),
    'views': Range(0, 10_000),
    'accumulate': Range(1, 2**16),
    'remat': SWITCH,
    'ema': Range(0.0, 1.0, below=True),
    'sam': Range(0.0, 100.0),
    'keep': PLUGIN,
  },
  'grid': {
    'learning_rate': Each(POSITIVE),
    'weight_decay': Each(NOT_NEGATIVE),
    'extend': Range(0, 100),
  },
  'source': {
    'backbone': PLUGIN,
    'weights': TEXT,
    'sha256': TEXT,
    'part': TEXT,
    'form': TEXT,
    'input': FIELDS,
    **DATA,
    'train': FIELDS,
    'seed': SEED,
    'seeds': Each(SEED),
  },
  'target': {
    **DATA,
    'val_fraction': SHARE,
    'test_fraction': SHARE,
    'val_examples': COUNT,
    'folds': Range(0, 1000),
    'spread_shots': SWITCH,
    'class_names': TEXTS,
  },
  'method': {
    'init': ('source', 'random', 'mean_var'),
    'head_after': STAGE,
    'head': PLUGIN,
    'added': PLUGIN,
    'grid': FIELDS,
    'phases': PHASES,
  },
  'mesh': {'run': Range(0, 2**16), 'data': Range(0, 2**16), 'fsdp': SWITCH},
  'config': {
    'name': TEXT,
    'claim': TEXT,
    'claims': CLAIMS,
    'sources': FIELDS,
    'targets': FIELDS,
    'methods': FIELDS,
    'only': TEXT,
    'shots': Each(COUNT),
    'seeds': Each(SEED),
    'grid': FIELDS,
    'baseline': TEXT,
    'validation': ('all', 'matched'),
    'evaluators': PLUGINS,
    'train': FIELDS,
    'data_bytes': Range(1.0, 1e18),
    'data_dir': TEXT,
    'cohort_bytes': Range(1.0, 1e18),
    'device_bytes': BYTES,
    'reuse': SWITCH,
    'feature_bytes': BYTES,
    'feature_dir': TEXT,
    'mesh': FIELDS,
    'checkpoint_seconds': Range(0.0, 1e9),
  },
}
