"""The pages of docs/: their links lead somewhere, and the site has all of them."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / 'docs').glob('*.md'))
LINK = re.compile(r'\]\(([^)#\s]+)[^)]*\)')


@pytest.mark.parametrize('page', [*PAGES, ROOT / 'README.md'], ids=lambda page: page.name)
def test_links_lead_to_files(page):
  for target in LINK.findall(page.read_text(encoding='utf-8')):
    if '://' not in target:
      assert (page.parent / target).exists(), f'{page.name} links to {target}'


def test_the_first_page_leads_to_all_others():
  linked = set(LINK.findall((ROOT / 'docs' / 'index.md').read_text(encoding='utf-8')))
  assert {page.name for page in PAGES} - {'index.md'} <= linked
