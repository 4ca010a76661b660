"""What goes with an exported program: what it answers, and scripts that feed it without tlx."""

from collections.abc import Callable

import jax

# Of what a task keeps, on the device: what its `answers` gives for each class, or the value.
ANSWERS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'classification': jax.nn.softmax,
  'multi_label': jax.nn.sigmoid,
  'regression': lambda values: values,
}

_COMMON = '''
import json
import pathlib
import sys

import jax
import numpy as np

HERE = pathlib.Path(__file__).parent
ABOUT = json.loads((HERE / 'about.json').read_text(encoding='utf-8'))
PROGRAM = jax.export.deserialize(bytearray((HERE / 'program.bin').read_bytes()))


def answer(stored):
  """[N, K]: probabilities of ABOUT['class_names'], or [N] values."""
  return np.asarray(PROGRAM.call(stored))


def show(name, row):
  if ABOUT['task'] == 'regression':
    print(f'{name}\\t{float(row):.4f}')
    return
  order = np.argsort(-row)[:5]
  best = ', '.join(f'{ABOUT["class_names"][k]} {row[k]:.3f}' for k in order)
  print(f'{name}\\t{best}')
'''

IMAGES = (
  '''"""Labels images: python use.py IMAGE...   Wants jax, flatbuffers and Pillow."""
'''
  + _COMMON
  + '''

from PIL import Image, ImageOps

INPUT = ABOUT['input']
MODES = {1: 'L', 3: 'RGB'}


def eight_bits(image):
  """The image in a mode of 8 bits a channel; what is transparent is white."""
  clear = image.info.get('transparency')
  if image.mode.startswith('I;16'):
    values = np.asarray(image)
    if clear is not None:
      values = np.where(values == clear, 65535, values)
    return Image.fromarray(np.round(values / 257).astype(np.uint8))
  if image.mode[0] in 'IF' or image.mode == 'LAB':
    raise ValueError(f'pixels of mode {image.mode}; wanted grey or colours of 8 bits')
  if clear is not None or image.mode in ('LA', 'PA', 'RGBA', 'RGBa'):
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
  return image


def stored(path):
  """An image file as the program takes it, uint8 [H, W, C]."""
  with Image.open(path) as opened:
    image = eight_bits(ImageOps.exif_transpose(opened)).convert(MODES[INPUT['channels']])
  size, (width, height) = INPUT['image_size'], image.size
  scaled = int(size / INPUT['crop'])
  if INPUT['fit'] == 'squeeze':
    resized = (scaled, scaled)
  elif INPUT['fit'] == 'crop':
    resized = (scaled * width // min(width, height), scaled * height // min(width, height))
  else:
    longer = max(width, height)
    resized = (max(1, round(size * width / longer)), max(1, round(size * height / longer)))
  if image.size != resized:
    image = image.resize(resized, Image.Resampling[INPUT['interpolation'].upper()])
  left, top = (
    -((size - side) // 2) if INPUT['fit'] == 'pad' else round((side - size) / 2)
    for side in resized
  )
  image = image.crop((left, top, left + size, top + size))
  return np.asarray(image).reshape(size, size, INPUT['channels'])


if __name__ == '__main__':
  for path in sys.argv[1:]:
    show(path, answer(stored(path)[None])[0])
'''
)

TEXTS = (
  '''"""Labels texts: python use.py 'A text' ...   Wants jax, flatbuffers and tokenizers."""
'''
  + _COMMON
  + '''

from tokenizers import Tokenizer

TOKENIZER = Tokenizer.from_file(str(HERE / 'tokenizer.json'))
LENGTH = ABOUT['input']['length']
TOKENIZER.enable_truncation(LENGTH)
TOKENIZER.enable_padding(pad_id=ABOUT['pad_id'], length=LENGTH)


def stored(text):
  """A text, or a pair of them, as the program takes it: tokens int32 [1, LENGTH]."""
  row = TOKENIZER.encode(*text) if isinstance(text, tuple) else TOKENIZER.encode(text)
  leaves = {'ids': row.ids, 'mask': row.attention_mask, 'types': row.type_ids}
  return {name: np.array([leaves[name]], np.int32) for name in ABOUT['leaves']}


if __name__ == '__main__':
  for text in sys.argv[1:]:
    show(text, answer(stored(text))[0])
'''
)
