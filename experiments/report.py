"""Prints the tables of a study and writes its report.html, tables/ and figures/.

    python -m experiments.report --workdir=results/mnist_to_digits [--test_sampling]

Reads the folder alone, also while a study runs.
"""

import sys

from absl import app, flags

from tlx import report
from tlx.command import run_command, spare_collections

WORKDIR = flags.DEFINE_string(
  'workdir', None, 'The folder of a study, finished or not.', required=True
)
TEST_SAMPLING = flags.DEFINE_bool(
  'test_sampling',
  False,
  'Also intervals that take the test examples as drawn; reads all predictions.',
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; the folder goes into --workdir.')
  report.speak_utf8()
  try:
    said, path = report.written(WORKDIR.value, TEST_SAMPLING.value)
    print(f'{said}\n\nWrote {path}')
  except (ValueError, OSError) as error:
    print(error, file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  spare_collections()
  run_command(main)
