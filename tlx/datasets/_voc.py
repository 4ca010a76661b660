"""voc:FOLDER: boxes as Pascal VOC has them, an XML file an image (Everingham et al. 2010)."""

import os
import xml.etree.ElementTree as ElementTree
from xml.parsers import expat

from etils import epath

from tlx.datasets import _boxes
from tlx.datasets._types import Published, in_order, is_file, listing

_LISTS = ('ImageSets', 'Main')  # where the devkit has train.txt, val.txt and test.txt


def published(path: str, group: str = '', skip_bad: bool = False) -> Published:
  """The images of `voc:FOLDER`, as `_boxes.published` has them, which raises.

  All XML files at any depth, each of an image of the same name, or of the one that it names, in
  whatever folder: of several the one nearest to it. Parts are those of ImageSets/Main, or folders
  above the files that are named train, val and test. A box is xmax - xmin wide, without the pixel
  more of the devkit. `difficult` is a crowd: not learnt, not judged. Images without an XML file are
  not labelled and left out; an XML file without an object is of an image with nothing to find. An
  id is the path of the image.

  Raises:
    ValueError: no folder, or no XML file in it.
  """
  root = epath.Path(path).expanduser()
  if not root.is_dir():
    raise ValueError(f'voc:{path} wants a folder, and {root} is none. Check the path.')
  files = _boxes.Files(root)
  xmls = sorted((file for file in files.others if file.suffix.lower() == '.xml'), key=os.fspath)
  if not xmls:
    raise ValueError(f'{root} holds no .xml file. Want one for each image.')
  listed = _listed(root)
  images: list[_boxes.Annotated] = []
  bad: list[str] = []
  used: set[str] = set()
  for xml in xmls:
    part = listed.get(xml.stem, '') if listed else files.part(xml)
    if listed and not part:
      continue
    try:
      made = _image(files, xml, part, bad)
    except ValueError as error:
      bad.append(f'{files.name(xml)}: {error}')
      continue
    if made.id in used:
      bad.append(f'{files.name(xml)}: another file is of the image {made.id} too')
    else:
      images.append(made)
      used.add(made.id)
  notes: tuple[str, ...] = ()
  if unlabelled := [name for name in map(files.name, files.images) if name not in used]:
    where = 'a part or an .xml file' if listed else 'an .xml file'
    notes = (f'{len(unlabelled):,} images without {where} are left out: {listing(unlabelled)}.',)
  names = in_order(box.name for image in images for box in image.boxes)  # type: ignore[union-attr]
  images = _boxes.whole_or_divided(root, images)
  return _boxes.published(root, images, names, bad, group, skip_bad, notes)


def _listed(root: epath.Path) -> dict[str, str]:
  """{name of an image without its ending: part} of ImageSets/Main; {} without it."""
  found: dict[str, str] = {}
  for part in ('train', 'val', 'test'):
    if is_file(file := root.joinpath(*_LISTS, f'{part}.txt')):
      for line in file.read_text().splitlines():
        name = line.strip()
        if name and found.setdefault(name, part) != part:
          raise ValueError(f'{file}: {name} is in {found[name]} too. Keep it in one part.')
  return found


def _image(files: _boxes.Files, xml: epath.Path, part: str, bad: list[str]) -> _boxes.Annotated:
  """The image of a file; adds to `bad` the objects that have no box.

  Raises:
    ValueError: what is wrong with the file.
  """
  tree = parsed(xml.read_bytes())
  file = files.of_stem(xml.stem, xml)
  if isinstance(file, ValueError):
    named = os.path.basename((tree.findtext('filename') or '').replace('\\', '/').strip())
    other = files.of_stem(os.path.splitext(named)[0], xml) if named else file
    file = file if isinstance(other, ValueError) else other
  boxes = []
  for number, found in enumerate(tree.iter('object'), 1):
    made = _box(found, f'object {number} of {files.name(xml)}')
    if isinstance(made, str):
      bad.append(made)
    else:
      boxes.append(made)
  size = (_number(tree, 'size/width'), _number(tree, 'size/height'))
  name = files.name(xml) if isinstance(file, ValueError) else files.name(file)
  return _boxes.Annotated(name, file, part, boxes, (size[0] or 0, size[1] or 0))


def _box(found: ElementTree.Element, where: str) -> _boxes.Box | str:
  name = (found.findtext('name') or '').strip()
  corners = ('xmin', 'ymin', 'xmax', 'ymax')
  sides = [_number(found, f'bndbox/{corner}') for corner in corners]
  x0, y0, x1, y1 = sides
  if not name:
    return f'{where} has no name'
  if x0 is None or y0 is None or x1 is None or y1 is None:
    return f'{where} has no bndbox of {", ".join(corners)}'
  crowd = bool(_number(found, 'difficult'))
  return _boxes.Box(name, (x0, y0, x1, y1), where, crowd)


def _number(tree: ElementTree.Element, path: str) -> float | None:
  try:
    return float(tree.findtext(path) or '')
  except ValueError:
    return None


def parsed(data: bytes) -> ElementTree.Element:
  """The tree of an XML file.

  Raises:
    ValueError: it is damaged, or has a document type, by which a small file may become a huge one
      or read others.
  """

  def refuse(*_) -> None:
    raise ValueError('it has a DOCTYPE, which is not read. Remove that line')

  looked = expat.ParserCreate()
  looked.StartDoctypeDeclHandler = refuse
  try:
    looked.Parse(data, True)
    return ElementTree.fromstring(data)
  except (expat.ExpatError, ElementTree.ParseError) as error:
    raise ValueError(f'it is no XML: {error}') from None
