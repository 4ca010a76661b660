"""Tokenizers that come with the weights: a tokenizer.json, a WordPiece vocab.txt, or what is inside a GGUF file."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
_QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r'\s+(?!\S)|\s+')

# How a GGUF file's 'tokenizer.ggml.pre' splits text before the merges, after the tokenizer.json of the models that use it.
_GGUF_SPLITS = {
    'default': _BYTES,
    'gpt-2': _BYTES,
    'smollm': pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _BYTES]),
    'qwen2': pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_QWEN2), 'isolated'),
                                      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
}


def read(path: str) -> Tokenizer:
  """The tokenizer of a tokenizer.json, without its padding and truncation, or of a lower-casing BERT vocab.txt.

  Raises:
    ValueError: another kind of file.
  """
  if str(path).endswith('.json'):
    tokenizer = Tokenizer.from_str(epath.Path(path).read_text())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
  if str(path).endswith('.txt'):
    return _wordpiece({word: i for i, word in enumerate(epath.Path(path).read_text().splitlines())}, path)
  raise ValueError(f'{path} is neither a tokenizer.json nor a vocab.txt; name one of the two.')


def _wordpiece(vocabulary: dict[str, int], path: str) -> Tokenizer:
  """Uncased BERT's tokenizer (arXiv:1810.04805)."""
  special = ('[UNK]', '[CLS]', '[SEP]', '[PAD]', '[MASK]')
  missing = [word for word in special if word not in vocabulary]
  if missing:
    raise ValueError(f'{path} has {len(vocabulary)} words but not {", ".join(missing)}; wanted the vocab.txt of a BERT.')
  tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token='[UNK]'))
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece()
  tokenizer.add_special_tokens(list(special))
  tokenizer.post_processor = processors.TemplateProcessing(
      single='[CLS] $A [SEP]', pair='[CLS] $A [SEP] $B:1 [SEP]:1',
      special_tokens=[('[CLS]', vocabulary['[CLS]']), ('[SEP]', vocabulary['[SEP]'])])
  return tokenizer


def from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
  """The byte-level BPE tokenizer in the fields of a GGUF file ('tokenizer.ggml.tokens': [...], ...); it adds no special token.

  Raises:
    ValueError: a tokenizer of another kind, or a way to split text that is not known.
  """
  kind, split = fields.get('tokenizer.ggml.model'), fields.get('tokenizer.ggml.pre', 'default')
  if kind != 'gpt2' or split not in _GGUF_SPLITS:
    raise ValueError(f"The GGUF file has a tokenizer of kind {kind!r} that splits like {split!r}; have kind 'gpt2' with "
                     f'{", ".join(_GGUF_SPLITS)}. Use the tokenizer.json of the model.')
  words = fields['tokenizer.ggml.tokens']
  merges = [tuple(merge.split(' ')) for merge in fields['tokenizer.ggml.merges']]
  tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
  tokenizer.pre_tokenizer = _GGUF_SPLITS[split]
  tokenizer.decoder = decoders.ByteLevel()
  control, user_defined = 3, 4  # llama.cpp's token types that text is not split into
  types = fields.get('tokenizer.ggml.token_type', [])
  tokenizer.add_special_tokens([AddedToken(word, special=True) for word, t in zip(words, types) if t == control])
  tokenizer.add_tokens([AddedToken(word, normalized=False) for word, t in zip(words, types) if t == user_defined])
  return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], length: int | None = None) -> dict[str, np.ndarray]:
  """{'ids', 'mask'} int32 [N, T], padded with 0 at the right to `length`, or to the longest text; longer texts are cut there.

  A text that is cut keeps the special tokens around it.
  """
  if length is not None:
    tokenizer = Tokenizer.from_str(tokenizer.to_str())  # the caller's keeps its settings
    tokenizer.enable_truncation(length)
  rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
  ids = np.zeros((len(rows), length or max(map(len, rows))), np.int32)
  mask = np.zeros_like(ids)
  for i, row in enumerate(rows):
    ids[i, :len(row)], mask[i, :len(row)] = row, 1
  return {'ids': ids, 'mask': mask}
