"""An OpenAI-compatible door in front of servers: each request is a question that a controller answers."""
