"""Ranks a study's sources for its targets, without training: transferability scores of features.

    python -m experiments.rank --config=configs/mnist_to_near_and_far.py --workdir=runs/near
    python -m experiments.rank --config=... --scores=logme,knn --stages --out=FOLDER

Looks at training examples alone. Where --workdir holds results of the study, it says how well each
score's order agrees with them. --out takes the tables as CSV and a picture.
"""

import pathlib
import sys

from absl import app, flags, logging

from tlx.command import run_command

from .study import CONFIG, WORKDIR, parse

SCORES = flags.DEFINE_list(
  'scores', None, 'Files of tlx/scores; those that fit most, if not given.'
)
STAGES = flags.DEFINE_bool('stages', False, 'Every stage of every source, not only the last.')
SHOTS = flags.DEFINE_integer('shots', 0, 'Examples a class, of the first seed; 0 is all.')
OUT = flags.DEFINE_string('out', '', 'A folder for the tables and the picture.')


def main(argv):
  if len(argv) > 1 or CONFIG.value is None:
    raise app.UsageError('Give --config=FILE.py[:ARGUMENT]; see --help.')
  logging.set_verbosity(logging.ERROR)
  from tlx import report
  from tlx.report import folder, ranking
  from tlx.study import rank

  report.speak_utf8()
  workdir = WORKDIR.value or ''
  try:
    scores = SCORES.value or rank.SCORES
    ranked = rank.rank(CONFIG.value, workdir, scores, STAGES.value, SHOTS.value)
    tables = {'scores': ranked}
    if workdir and list(pathlib.Path(workdir).expanduser().glob('runs/*/result.json')):
      tables['agreement'] = ranking.against_results(ranked, folder.load(workdir))
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'Error: {error}')
  note = ranking.note(tables.get('agreement'))
  tables = {name: table for name, table in tables.items() if len(table)}
  for table in tables.values():
    print(table.to_string(index=False, float_format=lambda value: f'{value:.3f}') + '\n')
  if note:
    print(note + '\n')
  if OUT.value:
    place = pathlib.Path(OUT.value)
    place.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
      table.to_csv(place / f'{name}.csv', index=False)
    (place / 'scores.png').write_bytes(ranking.draw(ranked))
    print(f'Wrote {", ".join(f"{name}.csv" for name in tables)} and scores.png to {place}.')


if __name__ == '__main__':
  run_command(main, flags_parser=parse)
