"""How the runs of a cohort and their batches lie on the devices."""

from typing import NamedTuple

import jax
import numpy as np

from tlx.train import mesh as meshes
from tlx.types import PyTree

FSDP_SIZE = 2**14  # scalars in the smallest leaf that is worth splitting over devices


class Devices(NamedTuple):
  """How a cohort lies on the devices; 0 is for `mesh.shape` to choose."""

  run: int = 0
  data: int = 0
  fsdp: bool = False


ANY_DEVICES = Devices()


class Spread(NamedTuple):
  """How the runs of a cohort lie on the devices.

  They are dealt to those of the axis 'run', their batches split along 'data'.
  """

  mesh: jax.sharding.Mesh
  num_runs: int
  rows: np.ndarray  # the run that each place computes
  fsdp: bool

  @classmethod
  def over(
    cls, num_runs: int, devices: Devices = ANY_DEVICES, steps: np.ndarray | int = 0
  ) -> 'Spread':
    """Dealt to the devices one by one, those of most `steps` first.

    The last recurs where places are left.
    """
    run, data = meshes.shape(
      num_runs, jax.device_count(), {'run': devices.run, 'data': devices.data}
    )
    order = np.argsort(-np.broadcast_to(steps, num_runs), kind='stable')
    dealt = np.pad(order, (0, -num_runs % run), 'edge').reshape(-1, run).T
    return cls(meshes.make(run, data), num_runs, dealt.reshape(-1), devices.fsdp)

  def pad(self, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[self.rows], tree)

  def unpad(self, tree: PyTree) -> PyTree:
    _, places = np.unique(self.rows, return_index=True)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[places], meshes.get(tree))

  def shardings(self, tree: PyTree) -> PyTree:
    """Where leaves [R, ...] lie: split by runs.

    With fsdp large ones are split along their longest dimension too.
    """
    return jax.tree.map(
      lambda leaf: meshes.spec(self.mesh, 'run', *self._split(leaf.shape[1:])), tree
    )

  def _split(self, shape: tuple[int, ...]) -> tuple[str | None, ...]:
    size = self.mesh.shape['data']
    fits = [i for i, length in enumerate(shape) if length % size == 0]
    if not self.fsdp or not fits or np.prod(shape) < FSDP_SIZE:
      return ()
    longest = max(fits, key=lambda i: shape[i])
    return (*(None,) * longest, 'data')

  def place(self, tree: PyTree) -> PyTree:
    return jax.tree.map(meshes.put, tree, self.shardings(tree))

  def whole(self, tree: PyTree) -> PyTree:
    """Parameters that all runs share."""
    return meshes.put(tree, lambda leaf: meshes.spec(self.mesh, *self._split(np.shape(leaf))))

  def everywhere(self, tree: PyTree) -> PyTree:
    return meshes.put(tree, meshes.spec(self.mesh))

  def each(self, value: int) -> jax.Array:
    return self.place(np.full(len(self.rows), value, np.int32))

  def broadcast(self, tree: PyTree) -> PyTree:
    return jax.tree.map(
      lambda leaf: np.broadcast_to(np.asarray(leaf), (len(self.rows), *leaf.shape)), tree
    )

  def split_batch(self, tree: PyTree, *axes: str | None) -> PyTree:
    """Arrays whose dimension after `axes` is a batch, split along 'data' where it divides."""
    fits = lambda leaf: leaf.shape[len(axes)] % self.mesh.shape['data'] == 0
    return meshes.put(
      tree, lambda leaf: meshes.spec(self.mesh, *axes, 'data' if fits(leaf) else None)
    )
