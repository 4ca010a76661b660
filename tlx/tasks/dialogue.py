"""Answering: the tokens of the answers of a dialogue, predicted from all that was said before."""

import functools

from tlx.tasks import _tokens
from tlx.types import Task

FORM = 'dialogue'
COLUMNS = _tokens.COLUMNS


@functools.cache
def task(num_classes: int = 0) -> Task:
  """Cross-entropy in nats of the tokens of answers and of the one that ends each, [B, T, V].

  What users and the system say is read, and not learned: the form marks what is to be predicted.
  Columns: 'bits_per_byte' of the answers, without the tokens that end them, by which settings are
  chosen, 'bits_per_character', 'loss', 'token_perplexity', 'tokens' and 'bytes'
  (`_tokens.scores`). Kept of an example are its nats, bytes and characters.
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
