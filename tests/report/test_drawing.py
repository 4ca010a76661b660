"""How figures look, whatever is drawn."""

import pandas as pd

from tlx.report import drawing


def test_many_methods_stay_in_their_panel():
  """Thirty of them: none beside the axis, and the panel is no lower for what stands below it."""
  heights = []
  for number in (3, 30):
    names = [f'method{i}' for i in range(number)]
    columns = {'shots': 10.0, 'mean': 0.5, 'low': 0.4, 'high': 0.6}
    part = pd.DataFrame({'method': names, **{key: [v] * number for key, v in columns.items()}})
    figure, (ax,) = drawing.panels(1, 2)
    drawing.lines(ax, part, 'shots', 'method', names, lambda name: {}, dodge=0.12)
    places = [bars.lines[0].get_xdata()[0] for bars in ax.containers]
    assert 10 / 2**0.5 < min(places) < max(places) < 10 * 2**0.5
    drawing.legend(figure, [ax])
    figure.draw_without_rendering()
    heights.append(ax.get_window_extent().height)
  assert heights[1] > 0.85 * heights[0]
