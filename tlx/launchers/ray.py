"""Tasks of a Ray cluster (https://docs.ray.io): the one that RAY_ADDRESS names or that runs here,
else one of this machine alone.

A task whose node dies is started again on another one as soon as that has room.
"""

import os
import subprocess
from collections.abc import Sequence
from typing import Any

from tlx.launchers import Needs

TAKES = ('gpus', 'cpus')


class RayTask:
  """A task of the cluster."""

  def __init__(self, reference: Any):
    self.reference = reference
    self.name = f'Ray task {reference.task_id().hex()}'

  def poll(self) -> int | None:
    import ray

    ended, _ = ray.wait([self.reference], timeout=0)
    if not ended:
      return None
    try:
      return ray.get(self.reference)
    except ray.exceptions.RayError:  # its node is gone and there is no other, or it was cancelled
      return 1

  def stop(self, number: int) -> None:
    import ray

    ray.cancel(self.reference)


def to_its_end(command: Sequence[str], folder: str) -> int:
  """The exit code of a command that ran in a folder; a task that is cancelled has it save first."""
  process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
  try:
    return process.wait()
  finally:
    process.terminate()
    process.wait()


def start(commands: Sequence[Sequence[str]], folder: os.PathLike, needs: Needs) -> list[RayTask]:
  """A task for each command, spread over the nodes.

  Raises:
    ValueError: Ray is missing, there is no cluster at the address, or no node has so much.
  """
  try:
    import ray
  except ImportError:
    raise ValueError("--launcher=ray wants Ray: pip install 'tlx-jax[ray]'.") from None
  try:
    ray.init(ignore_reinit_error=True, logging_level='error', log_to_driver=False)
  except ConnectionError as error:
    raise ValueError(f'--launcher=ray: {error}') from None
  cpus = needs.cpus or 1
  wanted = {'CPU': cpus, 'GPU': needs.gpus}
  nodes = [node['Resources'] for node in ray.nodes() if node['Alive']]
  if not any(all(node.get(what, 0) >= few for what, few in wanted.items()) for node in nodes):
    raise ValueError(
      f'--launcher=ray: no node has {cpus} CPUs and {needs.gpus} GPUs for one process; there are '
      f'{[{what: node.get(what, 0) for what in wanted} for node in nodes]}.'
    )
  task = ray.remote(to_its_end).options(
    num_cpus=cpus, num_gpus=needs.gpus, max_retries=-1, scheduling_strategy='SPREAD'
  )
  return [RayTask(task.remote(command, os.getcwd())) for command in commands]
