import pytest

from tlx.study import progress
from tlx.study.progress import Part

EXACT = Part('exact', 160, 1)
PARTS = (EXACT, Part('linear', 160, 200), Part('full', 160, 100), EXACT, EXACT)


@pytest.fixture
def clock(monkeypatch):
  """A clock that stands where `clock.append(seconds)` puts it."""
  times = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: times[-1])
  return times


def test_time_left_is_by_method_where_it_is_known_and_by_the_mean_run_elsewhere(clock, capsys):
  reporter = progress.Reporter(PARTS)
  clock.append(60.0)  # the sources took a minute, which no run did
  reporter.begin()
  clock.append(70.0)
  reporter.say('a', 1, 3.0)
  assert (
    capsys.readouterr().out == ' 20%  a  runs 0/800\n'
  )  # four cohorts follow, and none is known yet
  reporter.finish()
  reporter.begin()
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
  reporter.skip(2)
  reporter.begin()
  clock.append(6.0)
  reporter.say('c', 50, 2.0)
  assert capsys.readouterr().out == ' 83%  c  runs 320/480  2.0 steps/s  1:06:40 left\n'


def test_lines_are_not_more_often_than_every_few_seconds(clock, capsys):
  reporter = progress.Reporter(PARTS[:1])
  for clock_time in (1.0, progress.LINE_SECONDS, progress.LINE_SECONDS + 1):
    clock.append(clock_time)
    reporter.say('a', 1, 1.0)
  assert capsys.readouterr().out.count('\n') == 1
