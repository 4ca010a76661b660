"""How fast a run answers, and what an answer costs."""

from tlx.evaluators import Finished
from tlx.types import Task

KEPT = ''
COLUMNS = ('examples_per_second', 'inference_flops')


def check(task: Task, batch_size: int = 32) -> None:
  """Raises ValueError where there is no such batch."""
  if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
    raise ValueError(
      f'inference wants a whole batch_size from 1 on, got batch_size={batch_size!r}.'
    )


def evaluate(finished: Finished, batch_size: int = 32) -> dict[str, object]:
  """The whole network on stored examples of the test set, compiled, warm, on one device.

  'examples_per_second': the median of several passes over one batch of that size, added weights
    merged into the network where their method can; a time, which differs from machine to machine
  'inference_flops': of an example, as XLA counts them
  'inference_device': [what ran it]; the batch size stands in the evaluator's options
  """
  speed = finished.speed(batch_size)
  return {
    'examples_per_second': speed.examples_per_second,
    'inference_flops': speed.flops,
    'inference_device': [speed.device],
  }
