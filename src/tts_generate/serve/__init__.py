"""An OpenAI-compatible proxy before the servers of a model: each request is a question that a controller answers."""
