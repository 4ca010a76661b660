"""Writes a first config for your data: a folder, a table, lines of JSON.

    python -m experiments.start PATH [--out=mine.py]

Says what it inferred and which argument overrides it, and the two commands that follow.
"""

import pathlib
import re
import sys

from absl import app, flags, logging

from tlx.command import run_command, spare_collections

OUT = flags.DEFINE_string('out', '', 'The config to write; by default the name of PATH, .py.')
TEXT = flags.DEFINE_list('text', [], 'The columns of a table that the text is made of.')
LABEL = flags.DEFINE_string('label', '', 'The column of a table that has the class.')
GROUP = flags.DEFINE_string(
  'group', '', 'What names a group, which stays in one part: a column, or a pattern over ids.'
)
ANSWERS = flags.DEFINE_string('answers', '', 'The role of dialogues that answers.')
SOURCE = flags.DEFINE_string('source', '', 'Other weights: a name of experiments.list weights.')


def main(argv):
  if len(argv) != 2:
    raise app.UsageError('Give the path of your data, and flags as --label=COLUMN.')
  logging.set_verbosity(logging.ERROR)
  from tlx import report, sources
  from tlx.study import start

  report.speak_utf8()
  path = pathlib.Path(argv[1])
  stem = re.sub(r'\W+', '_', path.resolve().name.split('.')[0]).strip('_').lower() or 'data'
  out = pathlib.Path(OUT.value or f'{stem}.py')
  rows = out.with_suffix('.jsonl')
  kept = rows.exists()
  asked = start.Asked(tuple(TEXT.value), LABEL.value, GROUP.value, ANSWERS.value, SOURCE.value)
  try:
    if out.suffix != '.py' or out.exists():
      why = 'is there already' if out.exists() else 'is no .py'
      raise ValueError(f'{out} {why}: name another by --out=FILE.py.')
    if SOURCE.value:
      sources.entry(SOURCE.value)
    found = start.find(path, asked, rows)
    out.write_text(start.written(found, asked, out.stem), encoding='utf-8')
  except (ValueError, OSError) as error:
    if not kept:
      rows.unlink(missing_ok=True)
    sys.exit(f'Error: {error}')
  print('\n'.join(found.said))
  print(f'Wrote {out}: {start.choices(found, asked)}')
  print(f'\nNow:\n{start.commands(found, asked, out)}')


if __name__ == '__main__':
  spare_collections()
  run_command(main)
