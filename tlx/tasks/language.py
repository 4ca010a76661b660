"""Language modelling: every token of running text, predicted from those before it."""

import functools

from tlx.tasks import _tokens
from tlx.types import Task

FORM = 'language'
COLUMNS = _tokens.COLUMNS


@functools.cache
def task(num_classes: int = 0) -> Task:
  """Cross-entropy in nats of the next token over the head that the source has, [B, T, V].

  Columns: 'bits_per_byte', by which settings are chosen, 'bits_per_character', 'loss',
  'token_perplexity', 'tokens' and 'bytes' (`_tokens.scores`). Kept of an
  example are its nats, bytes and characters.
  """
  del num_classes
  return Task(
    head=None,
    targets=_tokens.targets,
    terms=_tokens.terms,
    keep=_tokens.keep,
    scores=_tokens.scores,
    select=('bits_per_byte', -1),
    each=_tokens.EACH,
  )
