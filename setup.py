"""Everything is said in setup.cfg; this file lets `pip install --no-build-isolation -e .` work with any setuptools."""

from setuptools import setup

setup()
