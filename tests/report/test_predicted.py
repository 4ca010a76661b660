"""The page of what a run says of new examples."""

import numpy as np
import pandas as pd

from tests.report.test_report_page import HOSTILE, Checker
from tlx.report import predicted

PIXEL = (
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
)
LONG = 'a_folder_with_a_name_that_is_long_enough_to_be_wider_than_any_telephone_is/'


def made(count):
  """Answers of three classes, of which some rows could not be read."""
  shares = np.random.default_rng(0).dirichlet((1, 1, 1), count)
  names = np.array(['cat', 'dog', HOSTILE])
  bad = np.arange(count) % 10 == 9
  columns = {
    'id': [f'{LONG}{row}.jpg' for row in range(count)],
    'class': np.where(bad, '', names[shares.argmax(-1)]),
    'probability': np.where(bad, np.nan, shares.max(-1)),
  }
  columns |= {f'p({name})': np.where(bad, np.nan, share) for name, share in zip(names, shares.T)}
  return pd.DataFrame(columns | {'error': np.where(bad, f'broken {HOSTILE}', '')})


_FOUND = made(30)
NEW = (_FOUND, {row: {'png': PIXEL} for row in predicted.rows_shown(_FOUND)})


def test_the_least_sure_come_first_and_what_was_not_read_is_told():
  found, contents = NEW
  rows = predicted.rows_shown(found)
  assert len(rows) == 27 and found.probability[rows].is_monotonic_increasing
  text = predicted.page(f'the run {HOSTILE}', 'photographs', found, contents)
  page = Checker()
  page.feed(text)
  assert not page.stack and '<script>' not in text
  assert set(page.loads) == {f'data:image/png;base64,{PIXEL}'} and text.count('<img') == 27
  said = ' '.join(page.text)
  assert '27 examples were labelled' in said and '3 could not be read' in said
  order = [text.index(f'>{found.id[row]}<') for row in rows]
  assert order == sorted(order)
  first = found.loc[rows[0]].to_dict()
  second = sorted(float(first[f'p({name})']) for name in ('cat', 'dog', HOSTILE))[1]
  assert f'{first["probability"]:.3f}' in text and f'{second:.3f}' in text


def test_a_page_has_so_many_examples_and_says_how_many_more():
  found = made(300)
  text = predicted.page('a run', 'photographs', found, {})
  assert len(predicted.rows_shown(found)) == 200
  assert '70 more are not on this page; --out=FILE.csv has all.' in text


def test_answers_of_other_tasks_are_shown_as_they_come():
  found = pd.DataFrame({'id': ['1', '2'], 'value': [0.5, 0.25], 'error': ['', '']})
  text = predicted.page('a run', 'new.jsonl', found, {0: 'first text', 1: 'second text'})
  assert text.index('first text') < text.index('0.500') < text.index('second text')
  assert 'Classes' not in text and 'as they come' in text
