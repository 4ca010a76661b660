"""The page in a real browser."""

import base64
import html
import json
import pathlib
import re
import shutil
import subprocess

import pytest

from tests.report.test_predicted import NEW
from tlx import report
from tlx.report import claims, predicted

BROWSER = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
MEASURE = pathlib.Path(__file__).with_name('measure.html')
PLACES = [(width, scheme) for width in (400, 1400) for scheme in ('light', 'dark')]


@pytest.fixture(scope='module')
def looks(tmp_path_factory, make_study, predict):
  """[what a browser makes of a page at a width in a scheme]: of a report at all PLACES, then of a
  page of predictions.
  """
  folder = tmp_path_factory.mktemp('browser')
  methods = ('scratch', 'full', 'freeze2', 'linear', 'lora')
  make_study(folder, targets=('digits',), methods=methods, shots=(5,), rates=(0.003,))
  predict(folder, lambda result: [i % 7 > 0 or result['cell']['seed'] > 3 for i in range(40)])
  study = json.loads((folder / 'study.json').read_text())
  names = [f'a_class_with_a_name_that_is_long_{i}' for i in range(10)]
  study['data'] = {'mnist/digits': {'class_names': names}}
  stated = {'name': 'It helps', 'of': {'method': 'full'}, 'minus': {'method': 'scratch'}}
  have = {'source': ('mnist',), 'target': ('digits',), 'method': methods, 'shots': (5,)}
  study['config']['claims'] = [claims.resolved('config.claims[0]', claims.CLAIM | stated, have)]
  (folder / 'study.json').write_text(json.dumps(study))
  pages = (report.write(folder).read_text(), predicted.page('a run', 'new', *NEW))
  frames = [
    f'<iframe width={width} height=900 style="color-scheme: {scheme}" '
    f'srcdoc="{html.escape(page)}"></iframe>'
    for page in pages
    for width, scheme in PLACES
  ]
  (folder / 'measure.html').write_text(MEASURE.read_text().replace('FRAMES', ''.join(frames)))
  command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=4000']
  command += [f'--user-data-dir={folder}/browser', '--enable-logging=stderr', '--dump-dom']
  run = subprocess.run(
    [*command, f'file://{folder}/measure.html'], capture_output=True, text=True, timeout=120
  )
  found = re.search('FOUND(.*?)END', run.stdout)
  assert found and 'CONSOLE' not in run.stderr, run.stderr[-2000:]
  return json.loads(base64.b64decode(found[1]))


@pytest.mark.skipif(not BROWSER, reason='no browser: apt-get install chromium')
@pytest.mark.parametrize('page', [0, 1])
@pytest.mark.parametrize('place', range(4))
def test_pages_are_read_on_a_telephone_and_a_screen_in_light_and_dark(looks, page, place):
  (width, scheme), found = PLACES[place], looks[4 * page + place]
  assert width - 20 <= found['width'] <= width and found['needed'] <= found['width']
  dark = sum(map(int, re.findall(r'\d+', found['back']))) < 300
  assert dark == (scheme == 'dark')
  assert not found['faint'] and not found['white']
  assert not found['broken']
  assert not found['unreached'] and not found['unnamed']
  assert found['tables'] > (10, 1)[page] and found['drawings'] >= (5, 0)[page]
