"""The search: controllers are proposed, replayed and chosen; candidates written by a model run in a sandbox."""
