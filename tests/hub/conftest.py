"""The Hub of these tests runs on this machine; nothing here reaches another one."""

pytest_plugins = ["tts_generate.testing.hub.fixtures"]
