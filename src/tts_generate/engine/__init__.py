"""The live environment: decodes branches on a transformers model, steered by the same controllers as replay."""

from tts_generate.engine.distributed import generate_distributed
from tts_generate.engine.generate import AutoTTS, enable
from tts_generate.engine.output import AutoTTSOutput
from tts_generate.engine.record import record

__all__ = ["AutoTTS", "AutoTTSOutput", "enable", "generate_distributed", "record"]
