"""The live environment on servers: controllers over OpenAI-compatible completions endpoints."""

from tts_generate.server.model import ServerModel
from tts_generate.server.output import ServerOutput

__all__ = ["ServerModel", "ServerOutput"]
