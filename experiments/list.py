"""Lists what there is, a line each.

python -m experiments.list               rooms
python -m experiments.list backbones     the files of a room: what a config may name
python -m experiments.list backbones/bert  one of them: its options, and a backbone's stages
python -m experiments.list weights       public weights by name, and weights/NAME for one
"""

import inspect
import re
import sys

from absl import logging

from tlx import sources
from tlx.command import run_command, spare_collections
from tlx.plug import available, plug

ROOMS = (
  'backbones',
  'datasets',
  'distances',
  'evaluators',
  'freezing',
  'inputs',
  'launchers',
  'merging',
  'peft',
  'penalties',
  'scores',
  'similarity',
  'sources',
  'tasks',
  'trackers',
)
WEIGHTS = 'weights'
# What has the options of a backbone, of freezing, ...
BUILDERS = (
  'build',
  'rules',
  'added',
  'task',
  'form',
  'evaluate',
  'penalty',
  'score',
  'similarity',
  'distance',
  'merge',
)


def main(argv):
  logging.set_verbosity(logging.ERROR)
  try:
    if len(argv) == 1:
      print('\n'.join(f'{room:<12}{len(available(room)):>3} files' for room in ROOMS))
      print(f'{WEIGHTS:<12}{len(sources.CATALOGUE):>3} entries')
    elif argv[1:] == [WEIGHTS]:
      print(weights())
    elif len(argv) == 2 and argv[1].startswith(f'{WEIGHTS}/'):
      print(describe_weights(argv[1].split('/', 1)[1]))
    elif len(argv) == 2 and '/' in argv[1]:
      print(describe(*argv[1].split('/', 1)))
    elif len(argv) == 2 and argv[1] in ROOMS:
      for name in available(argv[1]):
        print(f'{name:<20}{_first(plug(argv[1], name).__doc__)}')
    else:
      raise ValueError(
        f'Got {" ".join(argv[1:])!r}; name one of {", ".join(ROOMS)}, weights, or ROOM/FILE.'
      )
  except ValueError as error:
    sys.exit(f'Error: {error}')


def describe(room: str, name: str) -> str:
  """What a plug-in says of itself: its docstring, options with defaults, variants, stages."""
  if room not in ROOMS:
    raise ValueError(f'No room {room!r}; have {", ".join(ROOMS)}.')
  module = plug(room, name)
  lines = [(module.__doc__ or '').strip()]
  builder = next((getattr(module, name) for name in BUILDERS if hasattr(module, name)), None)
  if hasattr(module, 'Options'):
    lines += [f'  {option} = {value!r}' for option, value in module.Options()._asdict().items()]
  elif builder:
    parameters = inspect.signature(builder).parameters.values()
    lines += [
      f'  {parameter}' for parameter in parameters if parameter.default is not inspect._empty
    ]
  if variants := getattr(module, 'VARIANTS', None):
    lines.append(f'variants: {", ".join(variants)}')
  if room == 'backbones':
    options, _ = module.tiny()
    lines.append(f'stages of a small one: {", ".join(module.build(**options).stages)}')
  return '\n'.join(lines)


def weights() -> str:
  """A line an entry of the catalogue, and what its words mean."""
  lines = [f'{"name":<31}{"M":>6}  verified  trained on']
  for name, entry in sources.CATALOGUE.items():
    lines.append(f'{name:<31}{entry.millions:>6.1f}  {entry.verified:<8}  {entry.trained_on}')
  lines += [f'{word}: {meaning}' for word, meaning in sources.VERIFIED.items()]
  return '\n'.join([*lines, f'M: million parameters. A config takes a name: {_EXAMPLE}'])


_EXAMPLE = "config.sources.mine = 'lite0.imagenet'"


def describe_weights(name: str) -> str:
  """What the catalogue says of some weights, and what their network takes.

  Raises:
    ValueError: it does not have them.
  """
  from tlx.study import config  # brings ml_collections, which the rest does not need

  entry = sources.entry(name)
  source = config.source_of('', name, {})
  about = {
    'weights': entry.uri,
    'sha256': entry.sha256 or 'not known',
    'backbone': entry.backbone,
    'licence': entry.licence,
    'trained on': entry.trained_on,
    'parameters': f'{entry.millions} million without a head of classes',
    'verified': f'{entry.verified}: {sources.VERIFIED[entry.verified]}',
    'input': source['input'],
  }
  return '\n'.join(f'{field}: {value}' for field, value in about.items())


def _first(text: str | None) -> str:
  """The first sentence of a docstring, on one line."""
  paragraph = ' '.join((text or '').split('\n\n')[0].split())
  return re.split(r'(?<!et al)\. ', paragraph)[0].rstrip('.')


if __name__ == '__main__':
  spare_collections()
  run_command(main)
