"""Devices: one mesh, whose only axis is called after what it splits."""
import os

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def use_all_cores() -> None:
  """Gives JAX's CPU backend a device a core, so that cohorts fill them; call it before anything touches a device.

  Small steps leave a core idle when XLA splits single operations; one run a core does not. XLA_FLAGS that say how many devices
  to make are left alone.
  """
  if 'xla_force_host_platform_device_count' not in os.environ.get('XLA_FLAGS', ''):
    jax.config.update('jax_num_cpu_devices', len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())


def make(axis: str) -> Mesh:
  """All devices along one axis: 'run' splits the runs of a cohort, 'data' the batch of a single run."""
  return Mesh(np.asarray(jax.devices()), (axis,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def along(mesh: Mesh, dimension: int = 0) -> NamedSharding:
  """One dimension of the array split along the mesh."""
  return NamedSharding(mesh, PartitionSpec(*(None,) * dimension, *mesh.axis_names))
