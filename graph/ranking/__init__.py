"""Telemetry to findings to suspects, with no LLM: pure, no clock, no network, no randomness.

Each detector (metrics, logs, traces, statuses, changes) compares the incident window with the baselines and returns
deviations; ``fuse`` explains away what callees account for and adds up what is left; ``topology`` checks the causal
path; ``impact`` computes what it costs.
"""

from graph.ranking.engine import rank

__all__ = ["rank"]
