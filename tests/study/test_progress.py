import pytest
from etils import epath

from tlx.study import progress
from tlx.study.progress import Part

PARTS = (
  Part('a', 'exact', 160, 1),
  Part('b', 'linear', 160, 200),
  Part('c', 'full', 160, 100),
  Part('d', 'exact', 160, 1),
  Part('e', 'exact', 160, 1),
)


@pytest.fixture
def clock(monkeypatch):
  """A clock that stands where `clock.append(seconds)` puts it."""
  times = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: times[-1])
  return times


def test_time_left_is_by_method_where_it_is_known_and_by_the_mean_run_elsewhere(clock, capsys):
  reporter = progress.Reporter(PARTS)
  clock.append(60.0)  # the sources took a minute, which no run did
  reporter.begin('a')
  clock.append(70.0)
  reporter.say('a', 1, 3.0)
  assert (
    capsys.readouterr().out == ' 20%  a  runs 0/800\n'
  )  # four cohorts follow, and none is known yet
  reporter.finish('a')
  reporter.begin('b')
  clock.append(80.0)
  reporter.say('b', 100, 1600.0)
  # 160 * 100 steps at 1600 a second are 10 s, so 'linear' takes 20 s; 'exact' took 10 s; 'full',
  # not seen yet, counts as the mean, 15 s
  assert (
    capsys.readouterr().out
    == f' 30%  b  runs 160/800  1,600 steps/s  0:00:{10 + 15 + 10 + 10} left\n'
  )


def test_the_only_cohort_goes_by_its_own_speed(clock, capsys):
  reporter = progress.Reporter(PARTS[:3])
  reporter.skip('a')
  reporter.skip('b')
  reporter.begin('c')
  clock.append(6.0)
  reporter.say('c', 50, 2.0)
  assert capsys.readouterr().out == ' 83%  c  runs 320/480  2.0 steps/s  1:06:40 left\n'


def test_lines_are_not_more_often_than_every_few_seconds(clock, capsys):
  reporter = progress.Reporter(PARTS[:1])
  for clock_time in (1.0, progress.LINE_SECONDS, progress.LINE_SECONDS + 1):
    clock.append(clock_time)
    reporter.say('a', 1, 1.0)
  assert capsys.readouterr().out.count('\n') == 1


def test_processes_are_counted_together():
  """Each run once, whoever knows of it; what waits is shared by those that work."""
  parts = {part.id: part for part in PARTS}
  first = progress.State(parts, ('a',), {'exact': (16.0, 160)}, 'b', 0.25, 10.0, 30.0)
  other = progress.State(parts, ('a', 'd'), {'exact': (48.0, 160)}, 'e', 0.5, 9.0, 9.0)
  idle = progress.State(parts, ('a', 'd'))
  found = progress.total([first, other, idle])
  assert (found.runs, found.done, found.with_parts) == (800, 320, 320 + 40 + 80)
  # 'exact' took 64 s for 320 runs and 'linear' 40 s for 160; the mean of both for 'full'
  assert found.left == pytest.approx(30.0 + 160 * 104 / 480 / 2)


def test_who_is_gone_works_at_nothing_and_keeps_what_it_finished(tmp_path):
  parts = {part.id: part for part in PARTS}
  gone, here = (progress.Board(epath.Path(tmp_path), name) for name in ('gone', 'here'))
  with gone.shown():
    gone.say(progress.State(parts, ('a',), {}, 'b', 0.5))
    assert here.states()['gone'].cohort == 'b'
  assert here.states()['gone'] == progress.State(parts, ['a'], {}, '', 0.5)
