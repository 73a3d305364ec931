"""The metric `pass_at_k`, to be imported; `evaluate.load` takes this folder."""
