"""What pyproject.toml has no words for: experiments/ is installed inside of tlx."""

from setuptools import find_namespace_packages, setup

setup(
  packages=[*find_namespace_packages(include=['tlx', 'tlx.*']), 'tlx.experiments'],
  package_dir={'tlx.experiments': 'experiments'},
)
