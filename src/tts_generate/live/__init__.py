"""A question on its way, wherever its branches are decoded: what the engine and the servers share, without torch."""
