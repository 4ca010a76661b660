"""Boxes drawn on images, for people to look at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Of classes by their numbers, again from the first where there are more: Okabe and Ito's colours
# but black, which tell apart whatever the eyes.
COLOURS = ('#e69f00', '#56b4e9', '#d55e00', '#f0e442', '#009e73', '#cc79a7', '#0072b2')
_DASH = 4  # pixels


def drawn(
  pixels: np.ndarray,
  boxes: np.ndarray,
  labels: Sequence[int],
  words: Sequence[str] = (),
  dashed: Sequence[bool] = (),
) -> Image.Image:
  """An image uint8 [H, W, C] with boxes [n, 4], x0, y0, x1, y1 in its pixels.

  Args:
    labels: numbers of classes, which say the colour.
    words: what stands at the corner of each box.
    dashed: which boxes are drawn so.
  """
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert('RGB')
  pen = ImageDraw.Draw(image)
  width = max(1, round(max(image.size) / 320))
  font = ImageFont.load_default(10 * width)
  for i, (box, label) in enumerate(zip(np.asarray(boxes, float).tolist(), labels)):
    colour = COLOURS[int(label) % len(COLOURS)]
    sides = _within(box, image.size)
    if i < len(dashed) and dashed[i]:
      _dashed(pen, sides, colour, width)
    else:
      pen.rectangle(sides, outline=colour, width=width)
    if i < len(words) and words[i]:
      _written(pen, (sides[0], sides[1]), words[i], colour, font)
  return image


def _within(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
  """The box cut to the pixels of the image; a side that is no pixel long is one."""
  x0, y0 = (min(max(side, 0), length - 1) for side, length in zip(box[:2], size))
  x1, y1 = (min(max(side - 1, 0), length - 1) for side, length in zip(box[2:], size))
  return x0, y0, max(x0, x1), max(y0, y1)


def _dashed(
  pen: ImageDraw.ImageDraw, sides: tuple[float, float, float, float], colour: str, width: int
) -> None:
  x0, y0, x1, y1 = sides
  step = 2 * _DASH * width
  for start in np.arange(x0, x1 + 1, step).tolist():
    end = min(start + step / 2, x1)
    pen.line([(start, y0), (end, y0)], colour, width)
    pen.line([(start, y1), (end, y1)], colour, width)
  for start in np.arange(y0, y1 + 1, step).tolist():
    end = min(start + step / 2, y1)
    pen.line([(x0, start), (x0, end)], colour, width)
    pen.line([(x1, start), (x1, end)], colour, width)


def _written(
  pen: ImageDraw.ImageDraw, place: tuple[float, float], words: str, colour: str, font
) -> None:
  """The words on the colour, in what can be read on it, within the image."""
  left, top, right, bottom = pen.textbbox((0, 0), words, font=font)
  width, height = right - left + 2, bottom - top + 2
  x = max(0, min(place[0], pen.im.size[0] - width))
  y = place[1] - height if place[1] >= height else place[1]
  pen.rectangle((x, y, x + width, y + height), fill=colour)
  pen.text((x + 1 - left, y + 1 - top), words, fill='black', font=font)


def legend(names: Sequence[str], width: int) -> Image.Image:
  """A strip as wide as that, with the names of classes in their colours, in as many lines as they
  take.
  """
  font = ImageFont.load_default(12)
  line, places, x, y = 18, [], 4, 2
  for label, name in enumerate(names):
    length = int(font.getlength(name)) + 22
    if x + length > width and x > 4:
      x, y = 4, y + line
    places.append((label, name, x, y))
    x += length
  strip = Image.new('RGB', (width, y + line), 'white')
  pen = ImageDraw.Draw(strip)
  for label, name, left, top in places:
    pen.rectangle((left, top + 3, left + 10, top + 13), fill=COLOURS[label % len(COLOURS)])
    pen.text((left + 14, top), name, fill='black', font=font)
  return strip


def sheet(
  images: Sequence[Image.Image], columns: int, below: Image.Image | None = None
) -> Image.Image:
  """Images of one size beside each other, and what stands below them."""
  gap = 4
  width, height = images[0].size
  columns = min(columns, len(images))
  rows = -(-len(images) // columns)
  whole = columns * (width + gap) - gap, rows * (height + gap) - gap
  made = Image.new('RGB', (whole[0], whole[1] + (below.size[1] if below else 0)), 'white')
  for i, image in enumerate(images):
    made.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
  if below:
    made.paste(below, (0, whole[1]))
  return made
