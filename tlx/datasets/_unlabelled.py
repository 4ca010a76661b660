"""Examples without labels, for a network that is trained: a folder, a file of images or texts."""

import codecs
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from etils import epath

from tlx.datasets import _lines as _files
from tlx.datasets import _texts
from tlx.datasets._types import SUFFIXES, UNREADABLE


class Unlabelled(NamedTuple):
  """kind: 'image' or 'text'; ids: file names or numbers of lines; records: of images the files, of
  texts str, pairs of str, or a ValueError that says what is wrong with the line.
  `notes` say what was guessed of the file or left out of it, a sentence each.
  """

  kind: str
  ids: tuple[str, ...]
  records: Sequence[Any]
  notes: tuple[str, ...] = ()


def unlabelled(path: str | os.PathLike) -> Unlabelled:
  """What is to be labelled: all images in a folder and the folders below it, one image, the texts
  of a jsonl, csv or tsv file, or the lines of a .txt (.gz too).

  Raises:
    ValueError: nothing there, or nothing that is an image or a text.
  """
  root = pathlib.Path(path).expanduser()
  if not root.exists():
    raise ValueError(f'There is nothing at {path}.')
  if root.is_dir():
    files = sorted((file for file in root.rglob('*') if _is_image(file)), key=os.fspath)
    if not files:
      raise ValueError(f'{path} holds no image ({", ".join(SUFFIXES)}).')
    return Unlabelled('image', tuple(os.fspath(file.relative_to(root)) for file in files), files)
  if _is_image(root):
    return Unlabelled('image', (root.name,), [root])
  name = root.name.lower().removesuffix('.gz')
  if name.endswith('.txt'):
    with _files.opened(epath.Path(root)) as stream:
      texts = _lines(stream.read())
  elif name.endswith(('.jsonl', '.csv', '.tsv')):
    texts = _texts.without_labels('jsonl' if name.endswith('.jsonl') else 'csv', root)
  else:
    raise ValueError(f'{path} is neither a folder, an image, nor a .jsonl, .csv, .tsv or .txt.')
  if not texts:
    raise ValueError(f'{path} holds no text.')
  return Unlabelled('text', tuple(name for name, _ in texts), [text for _, text in texts])


def of_texts(texts: Iterable[str]) -> Unlabelled:
  """Texts by their numbers from 1, as the lines of a file would be.

  Raises:
    ValueError: there is none, or one is no text.
  """
  records: list[Any] = []
  for number, text in enumerate(texts, 1):
    if not isinstance(text, str):
      raise ValueError(
        f'Number {number} of the texts is {text!r}, no text. Give texts, or the name of one file '
        'or folder.'
      )
    records.append(text if text.strip() else ValueError('an empty text'))
  if not records:
    raise ValueError('There is no text.')
  return Unlabelled('text', tuple(map(str, range(1, len(records) + 1))), records)


def _lines(data: bytes) -> list[tuple[str, Any]]:
  """[(number of the line, its text or what is wrong with it)] of those that are not empty."""
  found: list[tuple[str, Any]] = []
  for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
    try:
      text: Any = line.decode()
    except UnicodeDecodeError:
      text = ValueError('bytes that are not UTF-8')
    if line.strip():
      found.append((str(number), text))
  return found


def _is_image(file: pathlib.Path) -> bool:
  hidden = file.name.startswith('.')
  return not hidden and file.suffix.lower() in (*SUFFIXES, *UNREADABLE) and file.is_file()
