"""Other people's evaluation harnesses: lm-eval (`harness.lm_eval`) and Inspect (`harness.inspect_ai`).

Neither is imported, nor needed, before its module is.
"""
