"""Writes docs/gallery.md: what the docstrings of configs/ say, and what was measured.

python -m benchmarks.gallery
"""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'gallery.md'
README = 'the tables of the README'
MEASURED = {  # where the numbers of a config stand
  'mnist_to_digits': 'LP-FT minus scratch +11.8 [+3.6, +20.0] points at 1 example a class, +1.6 '
  f'[+1.0, +2.3] at 80; 801 runs in 50 s on 2 cores ({README}).',
  'mnist_to_near_and_far': 'Three frozen stages gain 3.9 points where labels alone are new, and '
  f'cost up to 18 further away ({README}).',
  'imagenet_to_folder_probe': '75.3% on 10 classes of 32 px photographs by an exact probe of '
  f'1,560 examples, 62.3 ± 1.3 by 200; 360 runs in 49 s ({README}).',
  'sentences_to_intents': '92.5% on the 77 intents of banking77 by an exact probe, 84.9 ± 2.3 by '
  f'10 a class ({README}).',
  'gpt_to_medical_chat': 'Bits per byte of doctors’ answers 1.227 as it is, 1.032 ± 0.010 by '
  f'LoRA, 0.956 ± 0.035 by all weights ({README}).',
  'advice_on_trial': 'The advised depth loses 0.15 and 0.11 points to the best one after the fact '
  f'({README}).',
}
HEAD = """# Gallery

Every file of `configs/`, by what its docstring says; below stands what was measured, where it was.
`configs/findings/` are [published findings, run again](findings.md).
"""


def made() -> str:
  """The page."""
  parts = [HEAD]
  for path in sorted((ROOT / 'configs').glob('*.py')):
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
    if not text:
      continue
    parts.append(f'## {path.stem}\n\n{_markdown(text)}\n')
    if found := MEASURED.get(path.stem):
      parts.append(f'**Measured:** {found}\n')
  return '\n'.join(parts)


def _markdown(docstring: str) -> str:
  """A docstring whose commands, which are indented, stand in blocks of their own."""
  lines: list[str] = []
  inside = False
  for line in docstring.splitlines():
    indented = line.startswith('  ') and bool(line.strip())
    if indented != inside:
      lines.append('```bash' if indented else '```')
      inside = indented
    lines.append(line[2:] if indented else line)
  return '\n'.join([*lines, *(['```'] if inside else [])])


if __name__ == '__main__':
  PAGE.write_text(made(), encoding='utf-8')
