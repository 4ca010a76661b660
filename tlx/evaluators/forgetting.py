"""What is left of the source's own task after the network was adapted to another."""

from tlx.evaluators import Finished

KEPT = ''
COLUMNS = ('source_accuracy', 'forgotten_accuracy')


def evaluate(finished: Finished) -> dict[str, float]:
  """Of a source that the study trained itself, on the source's test part, with the source's head.

  'source_accuracy': on what the run's stages give it
  'forgotten_accuracy': how much less that is than with the source's own stages; below 0 a gain
  Nothing of runs that started at random, of sources that came as weights, whose task is not known,
  and of runs whose head follows another stage.
  """
  recalled = finished.on_source()
  if recalled is None:
    return {}
  after, before = (
    float((logits.argmax(-1) == recalled.labels).mean())
    for logits in (recalled.logits, recalled.source_logits)
  )
  return {'source_accuracy': after, 'forgotten_accuracy': before - after}
