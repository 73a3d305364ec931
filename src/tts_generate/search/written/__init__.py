"""The workbench for candidates that are code: they run in the sandbox, and never in this process.

A candidate is examined (`conformance`: import rules, a schedule that is a budget, the same decisions in strict mode on
random recordings), then looked at with rising fidelity (`workbench`), which gives a curve and the episodes that tell
its writer what to change (`telling`), each as a short text (`traces`). At the highest fidelity a random part is run
again in strict mode; a candidate that does not come out the same is disqualified. `best` writes it as a folder.
"""
