"""Numbers of official packages (third_party/tests/text)."""

import json
import pathlib

_FILE = pathlib.Path(__file__).parents[2] / 'third_party' / 'tests' / 'text' / 'golden.json'
TEXT = json.loads(_FILE.read_text())
