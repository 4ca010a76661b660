"""Takes a run out of its study, into a folder of its own.

    python -m experiments.export --workdir=W --to=artefact --out=FOLDER
    python -m experiments.export --workdir=W --run=R --to=official --out=FOLDER
    python -m experiments.export --workdir=W --run=R --to=peft --out=FOLDER
    python -m experiments.export --workdir=W --run=R --to=stablehlo --out=FOLDER

artefact: all that it takes to use it and a card; tlx.load_run(FOLDER), or experiments.predict
--workdir=FOLDER. official: model.safetensors under the names of its architecture. peft: what was
added, for PeftModel.from_pretrained. stablehlo: a program with weights and normalisation inside,
and use.py, which runs it without tlx.
"""

import pathlib
import sys

from absl import app, flags, logging

from tlx.command import run_command

WORKDIR = flags.DEFINE_string('workdir', None, "The study's folder.", required=True)
RUN = flags.DEFINE_string('run', 'best', 'A folder of its runs/, or best.')
TO = flags.DEFINE_enum('to', 'artefact', ('artefact', 'official', 'peft', 'stablehlo'), 'As what.')
OUT = flags.DEFINE_string('out', None, 'A folder, new or empty.', required=True)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; see --help.')
  logging.set_verbosity(logging.ERROR)
  from tlx.study import export

  write = {
    'artefact': export.to_artefact,
    'official': export.to_official,
    'peft': export.to_peft,
    'stablehlo': export.to_stablehlo,
  }[TO.value]
  try:
    print(write(WORKDIR.value, RUN.value, OUT.value))
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
  print(f'Wrote {export.note(pathlib.Path(OUT.value).expanduser())}')


if __name__ == '__main__':
  run_command(main)
