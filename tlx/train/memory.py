"""What a program needs of a device, known before it runs."""

import os
import sys

import jax

KNOBS = (
  'Lower batch_size, raise accumulate (parts of a batch), set remat = True (activations computed '
  'again), lower cohort_bytes (fewer runs at a time) or device_bytes (of the examples that lie '
  'there), set mesh.fsdp = True (parameters split over the devices), give the backbone dtype '
  "'bfloat16', or a smaller image_size."
)


def executable(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
  """The executable.

  Raises:
    ValueError: it needs more memory than a device has; the message says which knobs there are.
  """
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise ValueError(
      f'A step does not fit into the memory of {jax.devices()[0]}: {str(error)[:300]} {KNOBS}'
    ) from error
  needed, available = needed_bytes(compiled), available_bytes()
  if available and needed > available:
    raise ValueError(
      f'A step needs {needed / 1e9:,.1f} GB on each device and {available / 1e9:,.1f} GB are '
      f'there. {KNOBS}'
    )
  return compiled


def needed_bytes(compiled: jax.stages.Compiled) -> int:
  """Bytes on one device while a program runs: arguments, results and what it makes in between.

  0 where XLA does not say.
  """
  found = compiled.memory_analysis()
  if found is None:
    return 0
  return (
    found.argument_size_in_bytes
    + found.output_size_in_bytes
    - found.alias_size_in_bytes
    + found.temp_size_in_bytes
  )


def available_bytes() -> int:
  """Bytes that one device can hold: its own limit, or its share of this machine's memory.

  0 where nobody knows.
  """
  limit = reported_bytes()
  if limit or sys.platform == 'win32':
    return limit
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return total // jax.local_device_count()


def reported_bytes() -> int:
  """Bytes that one device says it has for programs; 0 where it says nothing, as a CPU."""
  return (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit', 0)
