"""Prints the tables of a study and writes its report.html, tables/ and figures/.

  python -m experiments.report --workdir=results/mnist_to_digits
"""
import sys

from absl import app, flags

from tlx import report

WORKDIR = flags.DEFINE_string('workdir', None, 'The folder of a study, finished or not.', required=True)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; the folder goes into --workdir.')
  try:
    print(report.summary(WORKDIR.value))
    print(f'\nWrote {report.write(WORKDIR.value)}')
  except ValueError as error:
    print(error, file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  app.run(main)
