"""`python -m tts_generate.cli`, and so `accelerate launch -m tts_generate.cli record …`."""

from tts_generate.cli import app

app()
