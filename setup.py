"""Installation par les outils qui attendent encore un setup.py ; tout est dit dans pyproject.toml."""

from setuptools import setup

setup()
