"""Runs a study.

    python -m experiments.study --config=configs/mnist_to_digits.py --workdir=runs/mnist_to_digits

The same command continues an interrupted study. --dry_run shows what would run. --config.a.b=x
overrides a field.
"""

import contextlib
import os
import pathlib
import re
import shlex
import signal
import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from tlx.command import collect_again, run_command, spare_collections, spelled
from tlx.plug import available, closest, plug
from tlx.study.config import add_defaults, missing_field


class Parser(flags.ArgumentParser):
  """Reads a config file; what flags override and the file leaves out has its default there."""

  def __init__(self, file_parser: flags.ArgumentParser):
    self.file_parser = file_parser

  def parse(self, path: str) -> Any:
    config = self.file_parser.parse(path)
    with contextlib.suppress(OSError):  # no such file: said where it is used
      add_defaults(config, _overrides(sys.argv))
    return config


def _overrides(argv: list[str]) -> list[str]:
  """'config.a.b' of each --config.a.b=x."""
  found = (re.match(r'--?(?:no)?(config\.[^=]*)', argument) for argument in argv)
  return [match[1] for match in found if match]


CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'The study: a file of configs/, with :argument where it takes one.'
)
CONFIG_PARSER = flags.FLAGS['config'].parser = Parser(flags.FLAGS['config'].parser)
WORKDIR = flags.DEFINE_string('workdir', None, 'The folder for all that the study finds.')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print cells, programs, memory and FLOPs, and stop.')
COMPILE = flags.DEFINE_bool(
  'compile',
  False,
  'With --dry_run: also load the data and compile all programs, into the compilation cache.',
)
CONFIRM = flags.DEFINE_bool(
  'confirm',
  False,
  "Run the study's claims on the seeds of config.confirm, once they stand: into WORKDIR/confirm.",
)
TENSORBOARD = flags.DEFINE_bool(
  'tensorboard', False, 'Write event files of each finished method to WORKDIR/tensorboard.'
)
WANDB = flags.DEFINE_bool('wandb', False, 'Tell Weights & Biases of each finished method.')
MLFLOW = flags.DEFINE_bool('mlflow', False, 'Tell MLflow of each finished method.')
PROFILE = flags.DEFINE_string(
  'profile', '', 'FIRST:STOP, steps of each cohort that jax.profiler traces, to WORKDIR/profile.'
)
STOP_SECONDS = 4.0  # after Ctrl-C
WORKERS = flags.DEFINE_integer(
  'workers',
  0,
  'Processes that share the study, on this machine each with its share of the cores or GPUs.',
  lower_bound=0,
)
LAUNCHER = flags.DEFINE_enum(
  'launcher', 'local', available('launchers'), 'Where --workers are: a file of tlx/launchers.'
)
PARTITION = flags.DEFINE_string('partition', '', 'Of Slurm, for each of --workers.')
TIME = flags.DEFINE_integer(
  'time', 0, 'Minutes after which Slurm ends a worker, which then goes on in the queue.', 0
)
GPUS = flags.DEFINE_integer('gpus', 0, 'GPUs that Slurm or Ray gives each of --workers.', 0)
CPUS = flags.DEFINE_integer('cpus', 0, 'Cores that Slurm or Ray gives each of --workers.', 0)
WORKER = flags.DEFINE_string('worker', '', 'The name of one of these, set by who starts it.')
COORDINATOR = flags.DEFINE_string(
  'coordinator',
  '',
  'Of several processes, HOST:PORT of the first; auto on clusters that JAX knows (Slurm, TPU '
  'pods).',
)
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many there are; not with auto.')
PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Which of them this is, from 0; not with auto.'
)


def _check_file(argv: list[str]) -> None:
  """Ends with one line where --config=FILE[:ARGUMENT] names no file."""
  for argument in argv:
    match = re.match('--?config=(.*?\\.py)(:|$)', argument)
    if match and not (file := pathlib.Path(match[1])).is_file():
      beside = [os.fspath(other) for other in file.parent.glob('*.py')]
      sys.exit(f'Error: There is no file {match[1]}.{closest(match[1], beside)}')


def parse(argv: list[str]) -> list[str]:
  """absl's parsing; an unreadable config or a wrong --config.a.b=x is one line that says why."""
  _check_file(argv)
  try:
    return app.parse_flags_with_usage(argv)
  except Exception as error:  # a config file may raise anything
    reason = f'{type(error).__name__}: {error}'
    with contextlib.suppress(Exception):
      flag = next(argument for argument in argv if argument.startswith('--config='))
      config = CONFIG_PARSER.parse(flag.partition('=')[2])
      missing = (missing_field(config, path) for path in _overrides(argv))
      reason = next(filter(None, missing), reason)
    sys.exit(f'Error: {reason}')


def _is_shared() -> bool:
  """Whether other processes than this one are to do the work."""
  wanted = WORKERS.value, LAUNCHER.value != 'local', PARTITION.value, TIME.value, GPUS.value
  return not WORKER.value and any((*wanted, CPUS.value))


def set_up_jax() -> None:
  """All cores, a compilation cache on disk, and no words about accelerators that are not there."""
  import jax  # after the flags are known to be right: it takes a second

  from tlx.train import mesh

  logging.set_verbosity(logging.WARNING)
  mesh.use_all_cores()
  default = os.path.expanduser('~/.cache/tlx/xla')
  cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', default)
  jax.config.update('jax_compilation_cache_dir', cache)
  # a study has many small programs
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def main(argv: list[str]) -> None:
  """Plan, run, report."""
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments {argv[1:]}; flags begin with --.')
  if CONFIG.value is None or not (WORKDIR.value or DRY_RUN.value):
    raise app.UsageError(
      'Say what to run and where to: --config=configs/FILE.py --workdir=DIR (or --dry_run).'
    )
  from tlx.study import dry_run, locks, run
  from tlx.train import mesh, profile

  set_up_jax()
  try:
    if COORDINATOR.value:
      mesh.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if DRY_RUN.value:
      print(dry_run.describe(CONFIG.value, WORKDIR.value or ''))
      if COMPILE.value:
        print(dry_run.compiled(CONFIG.value))
      return
    collect_again()
    config, workdir = CONFIG.value, str(WORKDIR.value)
    if CONFIRM.value:
      from tlx.study import confirm

      config, workdir = confirm.opened(config, workdir)
    profiled = profile.steps(PROFILE.value)
    if profiled and '://' in str(workdir):
      raise ValueError(f'--profile wants a folder of a disk, got {workdir}: mount the bucket.')
    told = [plug('trackers', flag.name) for flag in (TENSORBOARD, WANDB, MLFLOW) if flag.value]
    for tracker in told:
      tracker.check()

    def written(folder: Any, runs: list[str]) -> None:
      for tracker in told:
        tracker.write(folder, runs)

    if _is_shared():
      import jax

      from tlx.launchers import Needs
      from tlx.study import workers

      jax.config.update('jax_platforms', 'cpu')  # devices are theirs
      needs = Needs(PARTITION.value, TIME.value, GPUS.value, CPUS.value)
      workdir = workers.run(WORKERS.value or 1, workdir, LAUNCHER.value, needs)
    else:
      workdir = run.run(config, workdir, STOP_SECONDS, written, WORKER.value, profiled)
    with locks.last(workdir) as is_last:
      if WORKER.value or not mesh.is_first():
        return
      if not is_last:
        print(f'Others still work in {workdir}; the last of them writes the report.')
        return
      from tlx import report

      report.speak_utf8()
      said, path = report.written(workdir)
      print(f'{said}\nReport: {path}')
      boxes = any('detection' in str(target.get('task')) for target in config.targets.values())
      print(to_use(os.fspath(workdir), boxes))
  except Exception as error:
    mesh.leave()
    if not isinstance(error, (ValueError, OSError, ImportError)):
      raise
    sys.exit(f'Error: {error}')
  except KeyboardInterrupt as stop:
    print(
      f'Interrupted; {WORKDIR.value} holds all that was done. The same command continues.',
      file=sys.stderr,
    )
    sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))


def to_use(workdir: str, boxes: bool) -> str:
  """What to type to use what was trained; of boxes no Python, as tlx.predict does not give them."""
  out = 'FOLDER' if boxes else 'labels.csv'
  command = f'Use: {spelled("predict")} --workdir={shlex.quote(workdir)} --inputs=NEW --out={out}'
  if boxes:
    return command
  lines = ('import tlx', f'model = tlx.load_run({workdir!r})', "tlx.predict(model, 'NEW')")
  return '\n'.join((command, 'Or in Python:', *lines))


if __name__ == '__main__':
  spare_collections()
  run_command(main, flags_parser=parse)
