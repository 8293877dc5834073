"""The process that is measured: it loads a model, trains or generates, and reports what memory that took.

Started as ``python -m probes.child REQUEST.json`` by `probes.supervise`, once a group of points. Only this package
imports torch, transformers and Unsloth, and Unsloth before the others, as Unsloth asks.
"""
