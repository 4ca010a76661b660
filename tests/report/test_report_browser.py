"""The page in a real browser."""

import html
import re
import shutil
import subprocess

import pytest

from tests.report.test_predicted import NEW
from tlx import report
from tlx.report import predicted

BROWSER = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
MEASURE = """
<!DOCTYPE html><title>measure</title>
FRAMES
<script>onload = () => {
  for (const frame of document.querySelectorAll('iframe')) {
    const root = frame.contentDocument.documentElement
    frame.title = `${root.clientWidth} ${root.scrollWidth} ${frame.contentDocument.images.length}`
  }
}</script>
"""


@pytest.mark.skipif(not BROWSER, reason='no browser: apt-get install chromium')
def test_pages_fit_a_telephone_and_a_screen(tmp_path, make_study, predict):
  methods = ('scratch', 'full', 'freeze2', 'linear', 'lora')
  make_study(tmp_path, targets=('digits',), methods=methods, shots=(5,), rates=(0.003,))
  predict(tmp_path, lambda result: [i % 7 > 0 or result['cell']['seed'] > 3 for i in range(40)])
  study = (tmp_path / 'study.json').read_text()
  names = ', '.join(f'"a_class_with_a_name_that_is_long_{i}"' for i in range(10))
  data = f'"data": {{"mnist/digits": {{"class_names": [{names}]}}}}'
  (tmp_path / 'study.json').write_text(f'{study[:-1]}, {data}}}')
  pages = (report.write(tmp_path).read_text(), predicted.page('a run', 'new', *NEW))
  frames = [
    f'<iframe width={width} height=900 srcdoc="{html.escape(page)}"></iframe>'
    for page in pages
    for width in (400, 1400)
  ]
  (tmp_path / 'measure.html').write_text(MEASURE.replace('FRAMES', ''.join(frames)))
  command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=4000']
  command += [f'--user-data-dir={tmp_path}/browser', '--enable-logging=stderr', '--dump-dom']
  run = subprocess.run(
    [*command, f'file://{tmp_path}/measure.html'], capture_output=True, text=True, timeout=120
  )
  found = [tuple(map(int, one)) for one in re.findall(r'title="(\d+) (\d+) (\d+)"', run.stdout)]
  assert len(found) == 4, run.stderr[-2000:]
  for (client, scroll, _), width in zip(found, 2 * (400, 1400)):
    assert width - 20 <= client <= width and scroll <= client
  assert 'CONSOLE' not in run.stderr, run.stderr[-2000:]
