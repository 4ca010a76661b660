"""Published findings, run again: each study of configs/findings, then once more on the seeds that
it keeps for confirming, and a page of all claims.

    python -m experiments.findings --workdir=runs/findings
    python -m experiments.findings --workdir=runs/findings --only=forgetting,rank

The same command continues. A study's report stands in its folder.
"""

import importlib
import pathlib
import pkgutil
import sys

from absl import app, flags

from tlx.command import run_command

from .study import WORKDIR, set_up_jax

ONLY = flags.DEFINE_list('only', None, 'Some of them, by the names of their files.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments {argv[1:]}; flags begin with --.')
  if not WORKDIR.value:
    raise app.UsageError('Give --workdir=DIR, a folder for one of each finding.')
  try:
    from configs import findings
  except ImportError:
    sys.exit('Error: findings are run from a checkout of tlx, where configs/findings lies.')
  have = [module.name for module in pkgutil.iter_modules(findings.__path__)]
  have = [name for name in have if not name.startswith('_')]
  wanted = ONLY.value or have
  if unknown := sorted(set(wanted) - set(have)):
    raise app.UsageError(f'--only={",".join(unknown)}: there are {", ".join(have)}.')
  from tlx import report
  from tlx.report import suite
  from tlx.study import confirm, run

  set_up_jax()
  report.speak_utf8()
  folder = pathlib.Path(WORKDIR.value)
  try:
    for name in wanted:
      print(f'\n{name}', flush=True)
      config = importlib.import_module(f'configs.findings.{name}').get_config()
      run.run(config, folder / name)
      run.run(*confirm.opened(config, folder / name))
      report.write(folder / name)
    print(f'\nReport: {suite.write(folder)}')
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'Error: {error}')
  except KeyboardInterrupt:
    sys.exit(f'Interrupted; {folder} holds all that was done. The same command continues.')


if __name__ == '__main__':
  run_command(main)
