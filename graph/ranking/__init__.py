"""Telemetry to findings to suspects, with no LLM: pure, no clock, no network, no randomness.

``engine.rank`` is the one way in. Detectors compare the incident's windows with the baselines (``windows``) and return
``deviation.Deviation``s; fusion makes suspects of them.

- metrics: ``samples`` cuts and screens, ``semantics`` says what names mean, ``metrics`` judges; ``llm`` the ``llm.*``
- logs: ``templates`` and ``stacktraces`` say which lines are alike, ``logs`` counts them, ``transitions`` their order
- traces: ``spans`` makes columns; ``span_errors``, ``span_times`` and ``calls`` find trouble, ``tally`` counts it and
  ``edges`` charges it to one end of a call; ``traces`` is all of them
- ``statuses``, ``changes`` and ``knowledge`` (``terms``: words in common): what is known besides
- suspects: ``topology`` (who calls whom, causal paths), ``added_work`` (made for others), ``fuse`` (explains
  away and adds up), ``assessment`` (is it?)
- told: ``findings`` and their ``queries``; ``impact`` is what it costs; ``encodable`` keeps it writable
"""

from graph.ranking.engine import rank

__all__ = ["rank"]
