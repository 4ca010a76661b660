"""Whether two runs lie in one basin: how much worse it is between them, on a straight line."""

from tlx.evaluators import Finished
from tlx.types import Task

KEPT = ''
COLUMNS = ('*_barrier', 'line_distance')


def check(task: Task, points: int = 11) -> None:
  """Raises ValueError where there is nothing between the ends."""
  if isinstance(points, bool) or not isinstance(points, int) or points < 3:
    raise ValueError(f'barrier wants 3 points on the line or more, got {points!r}.')


def evaluate(finished: Finished, points: int = 11) -> dict[str, object]:
  """Of the line from the run of the next lower seed, otherwise alike, to this one, on the test set;
  nothing of the lowest seed, and of runs that are the same network.

  '<column>_barrier' of the loss and of what settings are chosen by: at the worst of so many points
    how much worse it is than the straight line between the ends, at least 0 (Entezari et al. 2022,
    arXiv:2110.06296, definition 2.1; Frankle et al. 2020 take the mean of the ends)
  'line_distance': the Euclidean distance of their parameters, heads among them
  'line_<column>': a list, from the other run to this one; 'line_seeds': the seeds of both
  Batch statistics that were trained are computed anew between the ends. Of few examples each seed
  has its own. Where both start from one source this is the test of Neyshabur et al. 2020
  (arXiv:2008.11687, section 3.3).
  """
  line = finished.line(points)
  if line is None:
    return {}
  columns: dict[str, object] = {'line_distance': line.distance, 'line_seeds': list(line.seeds)}
  for column, direction in {'loss': -1, finished.task.select[0]: finished.task.select[1]}.items():
    values = [float(scores[column]) for scores in line.scores]
    columns |= {f'{column}_barrier': _barrier(values, direction), f'line_{column}': values}
  return columns


def _barrier(values: list[float], direction: int) -> float:
  """How much worse the worst is than the chord of the ends; NaN where one is not finite."""
  first, last, number = values[0], values[-1], len(values) - 1
  below = []
  for i, value in enumerate(values):
    chord = first + (last - first) * i / number
    below.append(direction * (chord - value))
  return max(0.0, *below) if sum(below) == sum(below) else float('nan')
