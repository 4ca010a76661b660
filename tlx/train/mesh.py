"""Devices and processes: one mesh of two axes.

'run' is for the runs of a cohort, 'data' for the examples of a batch. The processes of one study
run the same program. Only the first touches the study's folder; what it reads it tells the others.
"""

import os
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tlx.types import PyTree

LEAVE_SECONDS = 5.0  # in which processes that end for the same reason part in order


def use_all_cores() -> None:
  """Gives JAX's CPU backend a device a core, so that cohorts fill them.

  To be called before anything touches a device. Small steps leave a core idle when XLA splits
  single operations; one run a core does not. XLA_FLAGS that say how many devices to make are left
  alone.
  """
  if 'xla_force_host_platform_device_count' not in os.environ.get('XLA_FLAGS', ''):
    jax.config.update(
      'jax_num_cpu_devices',
      len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
    )


def join(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
  """Makes this process one of several that run the same study, before anything touches a device.

  Raises:
    ValueError: an address without the numbers that belong to it.
  """
  if coordinator == 'auto':
    jax.distributed.initialize()
    return
  if num_processes is None or process_id is None or not 0 <= process_id < num_processes:
    raise ValueError(
      f'--coordinator={coordinator} wants --num_processes and --process_id from 0 to '
      f'num_processes - 1, got {num_processes} and {process_id}; or --coordinator=auto on a '
      'cluster that JAX knows.'
    )
  jax.distributed.initialize(coordinator, num_processes, process_id)


def leave() -> None:
  """Ends this process soon, whatever the others are at: those that wait for it then fail too."""
  if jax.distributed.is_initialized():
    end = threading.Timer(LEAVE_SECONDS, os._exit, (1,))
    end.daemon = True
    end.start()


def make(run: int, data: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """`run` times `data` devices, by default those of all processes."""
  return Mesh(
    np.asarray(devices or jax.devices()).reshape(run, data),
    ('run', 'data'),
    axis_types=(AxisType.Auto,) * 2,
  )


def shape(num_runs: int, num_devices: int, wanted: Mapping[str, int]) -> tuple[int, int]:
  """(run, data): as many devices along `run` as there are runs to fill them, the rest along `data`.

  0 in `wanted` is free.

  >>> shape(5, 8, {'run': 0, 'data': 0}), shape(15, 8, {'run': 0, 'data': 2})
  ((4, 2), (4, 2))
  >>> shape(1, 8, {'run': 0, 'data': 0})
  (1, 8)

  Raises:
    ValueError: what is wanted does not use every device.
  """
  run, data = wanted['run'], wanted['data']
  if not run and not data:
    run = max(
      n for n in range(1, num_devices + 1) if num_devices % n == 0 and (n <= num_runs or n == 1)
    )
  run, data = run or num_devices // data, data or num_devices // max(run, 1)
  if run * data != num_devices:
    raise ValueError(
      f'config.mesh asks for {run} x {data} devices (run x data), and there are {num_devices}. '
      'Give numbers whose product that is, or 0 for what may be chosen.'
    )
  return run, data


def spec(mesh: Mesh, *axes: str | None) -> NamedSharding:
  """The array's first dimensions split along these axes of the mesh (None: not split).

  Without axes, whole on every device.
  """
  return NamedSharding(mesh, PartitionSpec(*axes))


def for_examples() -> Mesh:
  """A mesh whose axis 'data' is all devices, process after process."""
  devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  return make(1, len(devices), devices)


def share(rows: np.ndarray) -> np.ndarray:
  """Those of some rows that this process reads: as many in each, the last again where they do not
  divide.
  """
  size = -(-len(rows) // jax.process_count())
  first = jax.process_index() * size
  return rows[np.minimum(np.arange(first, first + size), len(rows) - 1)]


def joined(shares: PyTree, length: int) -> PyTree:
  """Arrays [length, ...] on the host of what each process read of its `share` of them."""
  if jax.process_count() == 1:
    return shares
  return jax.tree.map(
    lambda leaf: np.asarray(multihost_utils.process_allgather(leaf, tiled=True))[:length], shares
  )


def put_shares(shares: PyTree, mesh: Mesh) -> PyTree:
  """Arrays on the devices of `for_examples`, split over them, of what each process read of its
  `share` of them, which are as many as divide by the devices.
  """
  sharding = spec(mesh, 'data')
  if jax.process_count() == 1:
    return put(shares, sharding)
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), shares
  )


def put(tree: PyTree, sharding: Any) -> PyTree:
  """Arrays of the host (the same in every process) or of the devices, placed.

  `sharding` is one for all or (leaf) -> one for each.
  """

  def one(leaf: Any) -> jax.Array:
    where = sharding(leaf) if callable(sharding) else sharding
    if where.is_fully_addressable or isinstance(leaf, jax.Array):
      return jax.device_put(leaf, where)
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, where, lambda index: leaf[index])

  return jax.tree.map(one, tree)


def get(tree: PyTree) -> PyTree:
  """Arrays of the devices as whole arrays of the host, in every process."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return jax.tree.map(
    lambda leaf: (
      np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
      if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
      else np.asarray(leaf)
    ),
    tree,
  )


def is_first() -> bool:
  """Whether this is the process that reads and writes."""
  return jax.process_index() == 0


def on_first(function: Callable[[], Any]) -> Any:
  """What `function()` gives in the first process, in every process.

  What it raises there is raised everywhere.
  """
  if jax.process_count() == 1:
    return function()
  message = b''
  if is_first():
    try:
      message = pickle.dumps((function(), None))
    except Exception as error:
      message = pickle.dumps((None, error))
  bits = int(multihost_utils.broadcast_one_to_all(np.int32(max(10, len(message).bit_length()))))
  data = np.zeros(2**bits, np.uint8)  # of few lengths, since each is a program of its own
  data[: len(message)] = np.frombuffer(message, np.uint8)
  result, raised = pickle.loads(
    bytes(multihost_utils.broadcast_one_to_all(data))
  )  # it ends where the pickle ends
  if raised is not None:
    raise raised
  return result
