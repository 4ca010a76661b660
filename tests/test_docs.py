"""The pages of docs/: their links lead somewhere, the site has all of them, and what they say to
type is there.
"""

import ast
import inspect
import pathlib
import re
import shlex

import pytest
from PIL import Image

from benchmarks import gallery
from tlx.study import cohorts, config

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / 'docs').glob('*.md'))
ALL = [*PAGES, ROOT / 'README.md']
LINK = re.compile(r'\]\(([^)#\s]+)[^)]*\)')
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"DEFINE_\w+\(\s*'(\w+)'")


def blocks(page, *languages):
  """The code blocks of a page that are of these languages."""
  found = BLOCK.findall(page.read_text(encoding='utf-8'))
  return [text for language, text in found if language in languages]


@pytest.mark.parametrize('page', ALL, ids=lambda page: page.name)
def test_links_lead_to_files(page):
  for target in LINK.findall(page.read_text(encoding='utf-8')):
    if '://' not in target:
      assert (page.parent / target).exists(), f'{page.name} links to {target}'


def test_the_first_page_leads_to_all_others():
  linked = set(LINK.findall((ROOT / 'docs' / 'index.md').read_text(encoding='utf-8')))
  assert {page.name for page in PAGES} - {'index.md'} <= linked


def test_the_site_builds(tmp_path):
  build = pytest.importorskip('mkdocs.commands.build', reason="pip install 'tlx-jax[docs]'")
  from mkdocs.config import load_config

  build.build(load_config(str(ROOT / 'mkdocs.yml'), site_dir=str(tmp_path), strict=True))
  assert len(list(tmp_path.glob('*/index.html'))) == len(PAGES) - 1


def test_the_gallery_is_what_configs_say():
  assert gallery.PAGE.read_text(encoding='utf-8') == gallery.made(), 'python -m benchmarks.gallery'
  configs = {path.stem for path in (ROOT / 'configs').glob('*.py')}
  assert gallery.MEASURED.keys() <= configs


def flags_of(command):
  """The flags of experiments.<command>, with those of experiments.study that it takes."""
  source = (ROOT / 'experiments' / f'{command}.py').read_text()
  shared = re.findall(r'from \.(?: import )?(\w+)', source)
  found = set(FLAG.findall(source))
  return found.union(*map(flags_of, shared)) | ({'config'} if 'config' in source else set())


@pytest.mark.parametrize('page', ALL, ids=lambda page: page.name)
def test_commands_have_the_flags_that_pages_give_them(page):
  for text in blocks(page, '', 'bash', 'sh', 'console'):
    for line in text.replace('\\\n', ' ').splitlines():
      words = shlex.split(line, comments=True) if 'python -m experiments.' in line else []
      for place, word in enumerate(words):
        if not word.startswith('experiments.'):
          continue
        have = flags_of(word.removeprefix('experiments.'))
        for argument in words[place + 1 :]:
          flag, _, value = argument.removeprefix('--').partition('=')
          if argument.startswith('--'):
            assert flag.partition('.')[0] in have, f'{page.name}: {line}'
          if flag == 'config' and value.startswith('configs/'):
            assert (ROOT / value.partition(':')[0]).exists(), f'{page.name}: {line}'


@pytest.mark.parametrize('page', ALL, ids=lambda page: page.name)
def test_python_of_pages_calls_what_there_is(page):
  """Its imports run, and its calls of what is imported have arguments that are taken."""
  for text in blocks(page, 'python'):
    nodes = list(ast.walk(ast.parse(inspect.cleandoc(text))))
    names: dict = {}
    for node in nodes:
      if isinstance(node, (ast.Import, ast.ImportFrom)):
        exec(ast.unparse(node), names)
    for node in nodes:
      if not isinstance(node, ast.Call):
        continue
      first, *rest = ast.unparse(node.func).split('.')
      if first not in names or not all(name.isidentifier() for name in rest):
        continue
      called = names[first]
      for name in rest:
        called = getattr(called, name)
      inspect.signature(called).bind_partial(*node.args, **{k.arg: 0 for k in node.keywords})


def test_the_config_of_the_readme_is_a_study(tmp_path, monkeypatch):
  for name in ('cats', 'dogs'):
    (tmp_path / 'path/to/images' / name).mkdir(parents=True)
    for i in range(80):
      Image.new('L', (4, 4), i).save(tmp_path / 'path/to/images' / name / f'{i}.png')
  monkeypatch.chdir(tmp_path)
  names: dict = {}
  exec(blocks(ROOT / 'README.md', 'python')[0], names)
  study = config.resolve(names['get_config']())
  assert len(cohorts.cohorts_of(study)) > 4
