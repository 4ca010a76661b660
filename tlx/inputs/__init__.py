"""Forms: one a file, `form(**options) -> Form`."""

import jax

from tlx.types import Form, PyTree


def stored(form: Form, num_examples: int) -> PyTree:
  """The shapes of so many examples as they are stored, [N, ...]."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((num_examples, *leaf.shape), leaf.dtype), form.spec
  )


def entered(form: Form, num_examples: int) -> PyTree:
  """The shapes of what stage 0 takes of so many examples, [N, ...]."""
  return jax.eval_shape(form.enter, stored(form, num_examples))
