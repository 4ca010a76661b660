"""Forms: one a file, `form(**options) -> Form`."""

import jax
import numpy as np

from tlx.types import Form, PyTree


def stored(form: Form, num_examples: int) -> PyTree:
  """The shapes of so many examples as they are stored, [N, ...]."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((num_examples, *leaf.shape), leaf.dtype), form.spec
  )


def of_stored(form: Form, leaves: PyTree) -> Form:
  """The form of stored examples [N, ...]: itself, or where they are smaller one of their shapes."""
  spec = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), leaves)
  if spec == form.spec:
    return form
  shapes = jax.tree.map(lambda leaf: str(np.shape(leaf)[1:]), leaves)
  return form._replace(name=f'{form.name} stored as {shapes}', spec=spec)


def entered(form: Form, num_examples: int) -> PyTree:
  """The shapes of what stage 0 takes of so many examples, [N, ...]."""
  return jax.eval_shape(form.enter, stored(form, num_examples))
