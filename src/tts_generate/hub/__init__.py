"""The Hub, and folders like those on it: what is fetched, what is believed, and what is sent.

A controller's repo is a small versioned thing: `controller.json` says what it is, `controller.py` holds its class. Both
are checked as bytes before anything runs (`card`), only code that somebody vouched for runs (`trust`), only at a commit
that cannot change (`pin`, `lock`), and `client` is the one place that talks to the Hub.
"""
