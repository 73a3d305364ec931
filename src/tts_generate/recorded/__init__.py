"""The recorded environment: branches as arrays, and the runs of a controller on them; no token is decoded."""
