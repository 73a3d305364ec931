"""The metric `maj_at_k`, to be imported; `evaluate.load` takes this folder."""
