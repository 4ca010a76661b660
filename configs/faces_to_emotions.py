"""Faces to emotions: a network that was trained to tell people apart, and to ignore their
expressions, put to reading expressions.

DATA is a folder of expressions (PATH/<class>/<image> or PATH/{train,val,test}/<class>/<image>),
csv:PATH/labels.csv (also the layout of FER-2013: emotion, pixels, Usage) or tfds:NAME. Frames of
one subject belong into one part: say how they are named, by a pattern over the path as here, or in
a column or groups.csv (docs/datasets.md):
  --config.targets.expressions.group='(S[0-9]+)_'
Of a small set without parts, --config.targets.expressions.folds=5 tests every subject once: single
splits differ by more than methods do.

Claim: the stages of the early middle carry more about expressions than the final descriptor, which
recognition has made invariant to them; fine-tuning from there beats fine-tuning the whole and
training from scratch (a layer analysis as in Yosinski et al. 2014).
Source: the face-recognition network of dlib (King 2017) as face-api ships it.

  python -m experiments.study --config=configs/faces_to_emotions.py:DATA --workdir=runs/faces

The weights are fetched once, by python -m experiments.fetch and their URI below. The probes take
minutes on two CPU cores for some thousand images, fine-tuning longer. On a GPU add
  --config.train.steps=1000 --config.train.batch_size=64 --config.shots='(20, 100, 0)'
"""

from tlx.study.config import base

# the last of each width, then what follows
STAGES = ('input', 'conv32_3', 'conv64_3', 'conv128_2', 'conv256_2', 'pool', 'descriptor')
PENALTIES = {'learning_rate': (1.0,), 'weight_decay': (0.001, 0.01, 0.1, 1.0)}


def get_config(data: str = 'expressions'):
  """12 methods x 2 sizes x 10 seeds x 4 settings."""
  config = base()
  config.name = f'Faces to emotions ({data})'
  config.claim = (
    'Early-middle stages of a face-recognition network carry more about expressions '
    'than its descriptor.'
  )
  config.sources.faces = {
    'backbone': 'face_resnet',
    'weights': 'npm:@vladmandic/face-api@1.7.15/model/face_recognition_model-weights_manifest.json',
    'sha256': '567752848708483b4cb94033e6b3bca879db3afceef0f8c0a1c820094f607406',
    'input': {'image_size': 150},
  }
  config.targets.expressions = {'dataset': data if ':' in data else f'folder:{data}'}
  config.shots = (5, 20)
  config.seeds = tuple(range(10))  # at 5 a class three seeds leave 19 points to either side
  config.train.steps = 60
  config.train.batch_size = 16
  config.train.evaluations = 2
  config.grid.learning_rate = (3e-5, 1e-4, 3e-4, 1e-3)
  probe = {'phases': [{'tune': 'head', 'solver': 'logistic'}], 'grid': PENALTIES}
  full = {'phases': [{'tune': 'all'}]}
  methods = {f'probe_{stage}': {'head_after': stage, **probe} for stage in STAGES}
  for stage in ('conv64_3', 'conv128_2'):
    methods[f'probe_{stage}_4x4'] = {'head_after': {'stage': stage, 'grid': 4}, **probe}
  methods |= {
    'full_conv128_2': {'head_after': 'conv128_2', **full},
    'full_descriptor': {'head_after': 'descriptor', **full},
    'scratch_conv128_2': {'init': 'random', 'head_after': 'conv128_2', **full},
  }
  config.methods = methods
  config.baseline = 'probe_descriptor'
  return config
