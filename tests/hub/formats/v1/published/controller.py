"""Reads `width` branches to their end and lets them vote."""

from tts_generate.controller import Controller


class Few(Controller):
    """Reads `width` branches to their end and lets them vote."""

    probing = "never"
    width: int

    @staticmethod
    def schedule(beta):
        return {"width": 1 + round(3 * beta)}

    def begin(self, state, do):
        do.open, do.open_steps = self.width, 1 << 20
