"""Vectors of new examples: what a stage of a network makes of each, averaged over places or tokens.

    python -m experiments.embed --workdir=runs/intents --inputs=texts.txt --out=vectors.npy
    python -m experiments.embed --weights=minilm_l6 --inputs=texts.txt --out=vectors.npy
    python -m experiments.embed --backbone=bert:minilm_l6 --weights=URI --inputs=photos --out=v.npy

Writes a float32 array [N, D], and beside it the ids, a line each. What cannot be read has NaN.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags, logging

from tlx.command import new_file, run_command

WORKDIR = flags.DEFINE_string('workdir', '', "A study's folder;")
RUN = flags.DEFINE_string('run', 'best', '  a folder of its runs/, or best.')
BACKBONE = flags.DEFINE_string('backbone', '', 'Or a file of tlx/backbones[:variant]')
WEIGHTS = flags.DEFINE_string(
  'weights', '', '  and its weights, a URI of tlx/sources; or a name of its catalogue alone.'
)


def load(fields=None, form=''):
  """The model that the flags name, of bare weights with these fields of its input."""
  from tlx.study import use

  if bool(WORKDIR.value) == bool(WEIGHTS.value):
    raise app.UsageError('Give either --workdir, or --backbone and --weights.')
  if WORKDIR.value:
    return use.load_run(WORKDIR.value, RUN.value)
  name, _, variant = BACKBONE.value.partition(':')
  options = {'variant': variant} if variant else {}
  backbone = {'name': name, **options} if options else name
  return use.load_source(backbone, WEIGHTS.value, fields, form)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; see --help.')
  if not OUT.value.endswith('.npy'):
    raise app.UsageError(f'--out is a .npy file, got {OUT.value!r}.')
  logging.set_verbosity(logging.ERROR)
  from tlx.study import spreadsheet, use

  try:
    new = spreadsheet.unlabelled(INPUTS.value, TEXT.value)
    model = load()
    for line in (*new.notes, model.about):
      print(line)
    new_file(OUT.value)
    vectors, bad = use.embed(model, new, STAGE.value)
    if UNIT.value:
      vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(OUT.value, vectors)
    pathlib.Path(f'{OUT.value}.ids.txt').write_text('\n'.join(new.ids) + '\n', encoding='utf-8')
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
  for row, why in bad.items():
    print(f'{new.ids[row]}: {why}')
  print(f'Wrote {OUT.value}, {vectors.shape[0]:,} x {vectors.shape[1]:,}, and {OUT.value}.ids.txt.')
  if len(bad) == len(new.ids):
    sys.exit('Error: nothing could be read.')


if __name__ == '__main__':
  UNIT = flags.DEFINE_bool('unit', False, 'Divide each vector by its length, for cosines.')
  STAGE = flags.DEFINE_string('stage', '', 'The stage; the last before the head, if not given.')
  INPUTS = flags.DEFINE_string('inputs', None, 'Images or texts, as for predict.', required=True)
  TEXT = flags.DEFINE_list('text', [], 'The columns of a table that the text is made of.')
  OUT = flags.DEFINE_string('out', None, 'A .npy file.', required=True)
  run_command(main)
