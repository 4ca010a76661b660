"""One small set of images with boxes, written as COCO, VOC and YOLO have it."""

import json

import numpy as np
from PIL import Image

NAMES = ('cat', 'dog')
SIZE = (40, 30)
# {part: {image: [(class, x0, y0, x1, y1)]}}; the last of each part has nothing to find
BOXES = {
  'train': {
    'a': [('dog', 4.0, 3.0, 14.0, 9.0), ('cat', 20.0, 12.0, 40.0, 30.0)],
    'b': [('cat', 8.0, 6.0, 12.0, 12.0)],
    'c': [],
  },
  'val': {'d': [('dog', 10.0, 15.0, 30.0, 27.0)], 'e': []},
  'test': {'f': [('cat', 0.0, 0.0, 20.0, 15.0), ('dog', 2.0, 3.0, 6.0, 9.0)], 'g': []},
}


def image(name):
  """Noise, another for each name."""
  random = np.random.default_rng(ord(name))
  return Image.fromarray(random.integers(0, 256, (*SIZE[::-1], 3), np.uint8))


def save_images(folder, names):
  folder.mkdir(parents=True, exist_ok=True)
  for name in names:
    image(name).save(folder / f'{name}.png')


def annotations(images, first=1):
  """COCO's content of {image: boxes}; categories have gaps in their ids."""
  found = {
    'images': [],
    'annotations': [],
    'categories': [{'id': 90, 'name': 'dog'}, {'id': 7, 'name': 'cat'}],
  }
  for number, (name, boxes) in enumerate(images.items(), first):
    size = dict(zip(('width', 'height'), SIZE))
    found['images'].append({'id': number, 'file_name': f'{name}.png', **size})
    for label, x0, y0, x1, y1 in boxes:
      found['annotations'].append(
        {
          'id': len(found['annotations']) + 1,
          'image_id': number,
          'category_id': {'cat': 7, 'dog': 90}[label],
          'bbox': [x0, y0, x1 - x0, y1 - y0],
          'area': (x1 - x0) * (y1 - y0),
          'iscrowd': 0,
        }
      )
  return found


def write_coco(root, parts=BOXES):
  for part, images in parts.items():
    save_images(root / part, images)
    (root / f'{part}.json').write_text(json.dumps(annotations(images)))
  return f'coco:{root}'


def xml_of(name, boxes):
  objects = ''
  for label, *sides in boxes:
    corners = ''.join(
      f'<{corner}>{side}</{corner}>'
      for corner, side in zip(('xmin', 'ymin', 'xmax', 'ymax'), sides)
    )
    objects += f'<object><name>{label}</name><bndbox>{corners}</bndbox></object>'
  size = f'<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>'
  return f'<annotation><filename>{name}.png</filename>{size}{objects}</annotation>'


def write_voc(root, parts=BOXES):
  for part, images in parts.items():
    save_images(root / part, images)
    for name, boxes in images.items():
      (root / part / f'{name}.xml').write_text(xml_of(name, boxes))
  return f'voc:{root}'


def write_yolo(root, parts=BOXES):
  for part, images in parts.items():
    save_images(root / 'images' / part, images)
    (root / 'labels' / part).mkdir(parents=True)
    for name, boxes in images.items():
      lines = []
      for label, x0, y0, x1, y1 in boxes:
        shares = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
        shares = [share / SIZE[i % 2] for i, share in enumerate(shares)]
        lines.append(f'{NAMES.index(label)} ' + ' '.join(f'{share:.6f}' for share in shares))
      if lines:
        (root / 'labels' / part / f'{name}.txt').write_text('\n'.join(lines) + '\n')
  (root / 'data.yaml').write_text('path: elsewhere\nnames: {0: cat, 1: dog}\n')
  return f'yolo:{root}'


WRITERS = {'coco': write_coco, 'voc': write_voc, 'yolo': write_yolo}
