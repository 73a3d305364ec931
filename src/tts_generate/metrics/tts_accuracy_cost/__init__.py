"""The metric `tts_accuracy_cost`, to be imported; `evaluate.load` takes this folder."""
