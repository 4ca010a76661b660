"""A study of journey_study.py run twice in this process, each time from an empty folder: the second
time nothing is compiled or decoded.

python -m benchmarks.timed_study SETTINGS.json WORKDIR      # prints a line of JSON
"""

import json
import os
import pathlib
import shutil
import sys
import time


def peak_bytes() -> int:
  """The most memory this process has held."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return 1024 * int(next(line for line in lines if line.startswith('VmHWM')).split()[1])


def main(settings: str, workdir: str) -> None:
  """Runs, and prints seconds, bytes and what the study says of itself."""
  import jax

  from benchmarks import journey_study
  from tlx import report
  from tlx.study import run
  from tlx.train import mesh

  mesh.use_all_cores()
  jax.config.update('jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR'])
  config, seconds = journey_study.get_config(settings), []
  for turn in range(2):
    folder = pathlib.Path(workdir, str(turn))
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    run.run(config, folder)
    seconds.append(time.perf_counter() - began)
  runs = report.read(folder)
  cost = {name: float(runs[name].sum()) for name in ('train_seconds', 'feature_seconds')}
  print(
    json.dumps(
      {
        'first': seconds[0],
        'second': seconds[1],
        'peak_bytes': peak_bytes(),
        **cost,
        'trainable_params': int(runs['trainable_params'].max()),
        'total_params': int(runs['total_params'].max()),
        'optimizer_bytes': int(runs['optimizer_bytes'].max()),
        'accuracy': float(runs['test_accuracy'].mean()),
      }
    )
  )


if __name__ == '__main__':
  main(*sys.argv[1:])
