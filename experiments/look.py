"""Shows what a study will see of its data, before it runs.

    python -m experiments.look --config=configs/imagenet_to_folder.py:PATH [--out=FOLDER]

Counts, raw files, copies, cut texts, and for each finding the field that changes it. With --out
also a picture of what the network will see of each class.
"""

import pathlib
import sys

from absl import app, flags, logging

from tlx.command import run_command

from .study import CONFIG, parse

OUT = flags.DEFINE_string('out', '', 'A folder for pictures of the examples.')


def main(argv):
  if len(argv) > 1 or CONFIG.value is None:
    raise app.UsageError('Give --config=FILE.py[:ARGUMENT]; see --help.')
  logging.set_verbosity(logging.ERROR)
  from tlx import report
  from tlx.study import look

  report.speak_utf8()
  try:
    for name, found in look.look(CONFIG.value).items():
      print(found.text)
      if OUT.value and found.sheet:
        folder = pathlib.Path(OUT.value)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f'{name.replace("/", "-")}.png'
        path.write_bytes(found.sheet)
        print(f'  Wrote {path}.')
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'Error: {error}')


if __name__ == '__main__':
  run_command(main, flags_parser=parse)
