"""Tests which learning rates a study's methods speak for, before it runs.

    python -m experiments.lr_range --config=configs/methods.py:DATA --method=full --out=rates.png

The rate of a method's last phase rises from --low to --high in equal ratios, one step each, on
training examples alone (Smith 2017; fastai's lr_find): two rates are read off the smoothed loss,
where it falls most steeply, and a tenth of where it is least. --out takes the picture.
"""

import pathlib
import sys

from absl import app, flags, logging

from tlx.command import run_command

from .study import CONFIG, WORKDIR, parse, set_up_jax

METHOD = flags.DEFINE_list('method', (), 'Methods of the config; all that take steps, if none.')
SOURCE = flags.DEFINE_string('source', '', "The config's first, if none.")
TARGET = flags.DEFINE_string('target', '', "The config's first, if none.")
SHOTS = flags.DEFINE_integer('shots', None, "One of the config's sizes; its largest, if none.")
LOW = flags.DEFINE_float('low', 1e-6, 'The rate of the first step.')
HIGH = flags.DEFINE_float('high', 1.0, 'The rate of the last step.')
STEPS = flags.DEFINE_integer('steps', 100, 'How many there are.')
OUT = flags.DEFINE_string('out', '', 'The picture, a PNG.')


def main(argv):
  if len(argv) > 1 or CONFIG.value is None:
    raise app.UsageError('Give --config=FILE.py[:ARGUMENT]; see --help.')
  set_up_jax()
  logging.set_verbosity(logging.ERROR)
  from tlx import report
  from tlx.study import lr_range

  report.speak_utf8()
  try:
    found = lr_range.find(
      CONFIG.value,
      METHOD.value,
      SOURCE.value,
      TARGET.value,
      WORKDIR.value or '',
      SHOTS.value,
      rates=(LOW.value, HIGH.value),
      steps=STEPS.value,
    )
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'Error: {error}')
  wide = max(len(name) for name in (*found, 'method'))
  print(f'{"method":<{wide}}{"steepest":>11}{"least / 10":>12}{"diverged at":>13}  in the config')
  for name, test in found.items():
    ended = f'{test.rates[-1]:.1e}' if len(test.rates) < STEPS.value else '-'
    own = ', '.join(f'{rate:g}' for rate in test.grid)
    print(f'{name:<{wide}}{test.steepest:>11.1e}{test.tenth:>12.1e}{ended:>13}  {own}')
  if OUT.value:
    title = f'{SOURCE.value or next(iter(CONFIG.value.sources))} -> '
    title += TARGET.value or next(iter(CONFIG.value.targets))
    path = pathlib.Path(OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lr_range.draw(found, title))
    print(f'Wrote {OUT.value}.')


if __name__ == '__main__':
  run_command(main, flags_parser=parse)
