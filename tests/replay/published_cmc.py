"""CMC in the published interface, as somebody who has such a file would bring it: written from the rules page."""

from abc import ABC, abstractmethod
from collections import Counter

from scipy.stats import beta


class LLMDesignedMethod(ABC):
    def __init__(self, config=None):
        self.config = config or {}

    @abstractmethod
    def solve(self, question): ...


class CMCMethod(LLMDesignedMethod):
    NAME = "cmc"

    def __init__(self, config=None):
        super().__init__(config)
        b = self.config["beta"]
        self.n_init, self.max_branches = max(2, round(2 + 6 * b)), min(64, round(4 + 60 * b))
        self.warm_up, self.patience = max(2, round(2 + 8 * b)), max(3, round(3 + 9 * b))
        self.window, self.alpha = max(2, round(2 + 6 * b)), round(0.70 - 0.40 * b, 4)
        self.thresh, self.slack = round(0.85 + 0.12 * b, 4), round(0.04 - 0.03 * b, 4)
        self.burst, self.widen = max(1, round(1 + 2 * b)), max(1, round(1 + 3 * b))
        self.trend, self.min_complete = round(0.04 - 0.03 * b, 4), max(2, round(2 + 3 * b))

    def vote(self, answers):
        common = Counter(answers).most_common(2)
        if not common:
            return None, 0.0
        top2 = common[1][1] if len(common) > 1 else 0
        return common[0][0], float(1 - beta.cdf(0.5, common[0][1] + 1, top2 + 1))

    def open(self, question, branches, pool, count):
        for _ in range(count):
            try:
                answer, index, finished = question.probe_new()
            except (IndexError, ValueError):
                return
            branches.append({"index": index, "latest": answer, "finished": finished, "steps": 0})
            branches[-1].update(off=0, out=False)
            if finished:
                pool.append(answer)

    def solve(self, question):  # noqa: C901
        branches, pool, ema, window = [], [], 0.0, []
        self.open(question, branches, pool, self.n_init)
        for r in range(500):
            winner, conf = self.vote(pool)
            warm = r >= self.warm_up
            ema = (1 - self.alpha) * ema + self.alpha * conf
            window = [*window, ema][-self.window :]
            live = [b for b in branches if not b["finished"] and not b["out"]]
            if warm and pool:
                for b in live:
                    b["off"] = b["off"] + 1 if b["latest"] != winner else 0
                lasting = sorted((b for b in live if b["off"] >= self.patience), key=lambda b: -b["off"])
                for b in lasting[: max(0, len(live) - 2)]:
                    b["out"] = True
            for b in sorted((b for b in live if not b["out"]), key=lambda b: -b["steps"]):
                for _ in range(self.burst if warm and pool and b["latest"] == winner and winner else 1):
                    if b["finished"]:
                        break
                    latest, b["finished"] = question.probe_more(b["index"])
                    b["steps"] += 1
                    b.setdefault("shown", []).append(latest)
                    if b["finished"]:
                        pool.append(latest)
                b["latest"] = b["shown"][-1]
            winner, conf = self.vote(pool)
            ema = (1 - self.alpha) * ema + self.alpha * conf
            window[-1] = ema
            delta = window[-1] - window[0] if len(window) > 1 else 0.0
            if warm and len(pool) >= self.min_complete and ema >= self.thresh and delta >= -self.slack:
                return winner
            if all(b["finished"] or b["out"] for b in branches):
                break
            room = self.max_branches - len(branches)
            if room > 0 and delta <= self.trend and r >= max(1, self.warm_up // 2) and ema < self.thresh:
                self.open(question, branches, pool, min(self.widen, room))
        if pool:
            return self.vote(pool)[0]
        return self.vote([b["latest"] for b in branches if not b["out"]])[0]
