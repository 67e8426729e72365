"""The explorer: a page on which to look where a trial looks, live or as files.

:class:`Explorer` computes, :mod:`~aevb.explore.server` serves it to one browser, and
:mod:`~aevb.explore.export` writes it as a folder; ``page/`` is what the browser is given.
"""
