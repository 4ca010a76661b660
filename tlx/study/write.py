"""What a language model writes: a run of a study, or bare weights."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from tlx import backbones
from tlx import generate as generation
from tlx.evaluators import Answer
from tlx.inputs import _tokenizers
from tlx.plug import plug
from tlx.study import config as configs
from tlx.study.use import Model

BATCH = 8  # prompts that are continued at a time
MOST = 32  # of them, where many are known to come
SHORTEST = 32  # prompts are padded to this or a power of two times it, so that few programs do
EVERY = 4  # tokens at a time while a text is streamed

Sampling = generation.Sampling
Messages = Sequence[tuple[str, str]]  # a role and what it says, each


def prompts_of(path: str) -> list[Any]:
  """The prompts of a file: lines of a text, or of a .jsonl the field prompt or text of each, or its
  messages as a list of (role, content).

  Raises:
    ValueError: a line without one, or prompts and messages in one file.
  """
  lines = pathlib.Path(path).read_text('utf-8-sig').split('\n')
  if not path.endswith('.jsonl'):
    return [line for line in lines if line.strip()]
  found: list[Any] = []
  for number, line in enumerate(lines, 1):
    if line.strip():
      try:
        found.append(_prompt_of(json.loads(line)))
      except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
          f'line {number} of {path} has neither prompt, text nor messages: {error}'
        ) from None
  if len({type(prompt) for prompt in found}) > 1:
    raise ValueError(f'{path} has prompts and messages; give each kind a file of its own.')
  return found


def _prompt_of(value: Any) -> str | list[tuple[str, str]]:
  """The prompt of a JSON object."""
  if messages := value.get('messages'):
    return [(one['role'], one['content']) for one in messages]
  text = value['prompt'] if 'prompt' in value else value['text']
  if not isinstance(text, str):
    raise TypeError(f'{text!r} is no text')
  return text


def write(
  model: Model,
  prompts: Sequence[Any],
  num_tokens: int,
  sampling: Sampling | None = None,
  seed: int = 0,
) -> list[str]:
  """How each prompt goes on, `num_tokens` at most: the most probable tokens, or drawn ones.

  A prompt is the beginning of a text, or of a model of dialogues its messages ((role, content),
  ...). What is drawn for it depends on the seed and its place among the prompts alone.

  Raises:
    ValueError: no language model, or a prompt that it cannot read.
  """
  return [text for text, _ in _written(model, prompts, num_tokens, sampling, seed)]


def answers(
  model: Model, dialogues: Sequence[tuple[str, Messages]], prompts: int, num_tokens: int
) -> list[Answer]:
  """The most probable answers in so many dialogues, given as (id, messages): in each its last
  answer before which there are no more tokens than the model's input and positions have room for.

  The dialogues are drawn, the same at every call; those without such an answer are passed over.
  """
  most, positions = model.source['input']['length'], _positions(model)
  if positions is not None:
    most = min(most, positions - num_tokens)
  places = np.random.default_rng(0).permutation(len(dialogues))
  asked: list[Answer] = []
  for name, messages in (dialogues[place] for place in places):
    if len(asked) == prompts:
      break
    for turn in reversed([i for i, (role, _) in enumerate(messages) if role == 'assistant']):
      before = messages[:turn]
      if before and len(_begin(model, before)[0]) <= most:
        asked.append(Answer(name, before, messages[turn][1], '', False))
        break
  if not asked:
    return []
  found = _written(model, [one.prompt for one in asked], num_tokens, batch=min(MOST, len(asked)))
  return [one._replace(text=text.strip(), ended=ended) for one, (text, ended) in zip(asked, found)]


def _written(
  model: Model,
  prompts: Sequence[Any],
  num_tokens: int,
  sampling: Sampling | None = None,
  seed: int = 0,
  batch: int = BATCH,
) -> list[tuple[str, bool]]:
  """[(how a prompt goes on, whether it ended by itself)], so many at a time in one loop."""
  if not prompts:
    raise ValueError('There is no prompt to go on from.')
  begun = [_begin(model, prompt) for prompt in prompts]
  length = _length(model, max(len(ids) for ids, _ in begun), num_tokens)
  found: list[tuple[str, bool]] = []
  for first in range(0, len(begun), batch):
    rows = begun[first : first + batch]
    filled = [*rows, *rows[-1:] * (batch - len(rows))]
    places = np.arange(first, first + batch)
    key = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), places)
    tokens = generation.generate(
      model.network,
      model.variables,
      _padded([ids for ids, _ in filled], length),
      num_tokens,
      sampling=sampling,
      key=key if sampling else None,
      eos=filled[0][1],
    )
    for row, (_, ends) in zip(np.asarray(tokens), rows):
      found.append((_text(model, row, ends), bool(np.isin(row, ends).any())))
  return found


def stream(
  model: Model, prompt: Any, num_tokens: int, sampling: Sampling | None = None, seed: int = 0
) -> Iterator[str]:
  """`write` of one prompt, in pieces while they are written."""
  ids, ends = _begin(model, prompt)
  pieces = generation.stream(
    model.network,
    model.variables,
    _padded([ids], _length(model, len(ids), num_tokens)),
    num_tokens,
    every=EVERY,
    sampling=sampling,
    key=jax.random.fold_in(jax.random.key(seed), 0)[None] if sampling else None,
    eos=ends,
  )
  tokens: list[int] = []
  said = ''
  for piece in pieces:
    tokens += piece[0].tolist()
    text = _text(model, tokens, ends)
    if not text.endswith('\ufffd'):  # a character whose bytes are not all there yet
      yield text[len(said) :]
      said = text
  yield _text(model, tokens, ends)[len(said) :]


def check(model: Model) -> None:
  """Raises ValueError where a model writes no text."""
  if model.others:
    raise ValueError('An ensemble writes no text. Take one run.')
  if not hasattr(configs.form_module(model.source), 'prompt'):
    name = model.about.partition(':')[0]
    raise ValueError(f'{name} writes no text: it is no language model.')


def _begin(model: Model, prompt: Any) -> tuple[list[int], tuple[int, ...]]:
  """(the tokens of a prompt, those that end what is written)."""
  check(model)
  return configs.form_module(model.source).prompt(prompt, model.source['input'])


def _length(model: Model, longest: int, num_tokens: int) -> int:
  """How long prompts are with their padding, which takes no position that `num_tokens` need."""
  length = SHORTEST
  while length < longest:
    length *= 2
  most = _positions(model)
  return length if most is None else max(longest, min(length, most - num_tokens))


def _positions(model: Model) -> int | None:
  """How many tokens a text of the model may have; None where nothing says."""
  name, options = configs.named(model.source['backbone'])
  resolved = backbones.resolved(plug('backbones', name), options)
  return getattr(resolved, 'max_positions', None)


def _padded(rows: Sequence[Sequence[int]], length: int) -> dict[str, np.ndarray]:
  """{'ids', 'mask'} int32 [N, length], padded at the left."""
  ids, mask = np.zeros((2, len(rows), length), np.int32)
  for i, row in enumerate(rows):
    ids[i, length - len(row) :] = row
    mask[i, length - len(row) :] = 1
  return {'ids': ids, 'mask': mask}


def _text(model: Model, tokens: Sequence[int], ends: Sequence[int]) -> str:
  """The text of tokens up to the first that ends it."""
  kept = list(map(int, tokens))
  stop = next((place for place, token in enumerate(kept) if token in ends), len(kept))
  tokenizer = _tokenizers.of_uri(model.source['input']['tokenizer'])
  return tokenizer.decode(kept[:stop], skip_special_tokens=True)
