"""Parts of ``examples/explore.py``: what the page asks for, the answers, and the page."""
