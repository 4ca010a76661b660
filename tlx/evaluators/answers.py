"""What a model of dialogues answers, against what was answered: ROUGE-L and chrF."""

from typing import Any

import numpy as np

from tlx.evaluators import Answer, Finished
from tlx.types import Task

KEPT = ''
COLUMNS = ('rouge_l', 'chrf', 'ended', 'prompts')
FORM = 'dialogue'
_LIBRARIES = ('rouge_score', 'sacrebleu')
_KEPT_ANSWERS = 12  # that are stored beside the scores
_KEPT_BYTES = 600  # of each text of these


def check(task: Task, prompts: int = 50, tokens: int = 64) -> None:
  """Raises ValueError where nothing is asked for, or the libraries that score are not there."""
  del task
  if prompts < 1 or tokens < 1:
    raise ValueError(
      f"Evaluator 'answers' wants at least one of prompts and tokens, got {prompts} and {tokens}."
    )
  for library in _LIBRARIES:
    try:
      __import__(library)
    except ImportError:
      raise ValueError(
        f"Evaluator 'answers' scores with {' and '.join(_LIBRARIES)}, and {library} is not "
        "installed. pip install '.[answers]', or leave it out."
      ) from None


def evaluate(finished: Finished, prompts: int = 50, tokens: int = 64) -> dict[str, Any]:
  """Greedy answers of up to `tokens` tokens to so many dialogues of the test part.

  'rouge_l': the F-measure of the longest common subsequence of words (Lin 2004), the mean over
    dialogues, by rouge_score's RougeScorer without stemming. Words are runs of a-z and 0-9 of the
    lower-cased text: letters with accents split words, and other scripts have none
  'chrf': chrF of all answers together (Popovic 2015), 0 to 100, by sacrebleu as it is set: up to 6
    characters, beta 2, case kept, spaces left out
  'ended': the share of answers that ended by themselves; the others were cut after `tokens`
  'prompts': how many dialogues these are of, fewer where the test part has fewer that fit
  'answers': of the first of them [id, what was said before, the reference, the answer, ROUGE-L],
    each cut to 600 bytes, what was said before at its beginning
  All but 'prompts' are NaN where no dialogue fits.
  """
  import sacrebleu
  from rouge_score import rouge_scorer

  found = finished.answers(prompts, tokens)
  if not found:
    return {'rouge_l': np.nan, 'chrf': np.nan, 'ended': np.nan, 'prompts': 0, 'answers': []}
  scorer = rouge_scorer.RougeScorer(['rougeL'], use_stemmer=False)
  rouge = [float(scorer.score(one.reference, one.text)['rougeL'].fmeasure) for one in found]
  chrf = sacrebleu.corpus_chrf([one.text for one in found], [[one.reference for one in found]])
  return {
    'rouge_l': float(np.mean(rouge)),
    'chrf': float(chrf.score),
    'ended': float(np.mean([one.ended for one in found])),
    'prompts': len(found),
    'answers': [_shown(one, score) for one, score in zip(found[:_KEPT_ANSWERS], rouge)],
  }


def _shown(one: Answer, score: float) -> list[Any]:
  prompt = '\n'.join(f'{role}: {content}' for role, content in one.prompt)
  return [one.id, _cut(prompt, last=True), _cut(one.reference), _cut(one.text), score]


def _cut(text: str, last: bool = False) -> str:
  """At most so many bytes of UTF-8 of a text, its first or its last, with … where more was.

  >>> _cut('short'), len(_cut('é' * 400)), _cut('a' * 600 + 'b', last=True)[:2]
  ('short', 301, '…a')
  """
  whole = text.encode()
  if len(whole) <= _KEPT_BYTES:
    return text
  kept = whole[-_KEPT_BYTES:] if last else whole[:_KEPT_BYTES]
  text = kept.decode(errors='ignore')
  return f'…{text}' if last else f'{text}…'
