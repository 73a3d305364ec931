"""The live environment on servers: controllers over OpenAI-compatible completions endpoints.

What is exact, and what is not:

- A run is exactly what its own branches say: written down and replayed, they give the same answers, costs and trace.
- A server that takes and returns token ids (vLLM) is sent the very ids that it decoded. One that speaks text is sent
  text, which it tokenizes anew: tokens may be cut differently, special tokens that it leaves out of its text are gone,
  and an end that it draws as the last token of a request without saying so is drawn again by the next one.
- Tokens are counted as the server reports them; requests that failed and were sent again are in no count.
- Requests carry a seed only if the call has one: it follows from (seed, prompt, branch, position). Whether a run
  repeats is up to the server: tokens depend on its batching, and `transformers serve` has one random state for all.
- Sampling options go with every request. A server that fixes them when it starts (`transformers serve
  --continuous-batching` takes those of its first request) cannot sample branches and decode probes greedily.
"""

from tts_generate.server.model import ServerModel, ServerOutput

__all__ = ["ServerModel", "ServerOutput"]
