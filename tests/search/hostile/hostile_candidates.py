"""Hostile and faulty controllers, and what must come of each: the list of the research, and more.

The code of each stands where `where` says in an honest controller; it claims success by raising `WORKED`. They run with
the import rules off, which are no protection.
"""

from __future__ import annotations

from dataclasses import dataclass

from tts_generate.sandbox.attacks import HOST, MACHINE, WORKED

GOLD = "the gold answer"
HONEST, VALID, DIFFERENT = "honest", "valid", "different"
"""Outcomes without an error: the honest result; some result; a bulk result that strict mode does not confirm."""

TEMPLATE = """
import ctypes, gc, json, os, sys, time
import numpy as np
from tts_generate.controller import Controller
from tts_generate.votes import majority

class Attack(BaseException):
    pass

{module}

class Candidate(Controller):
    width: int
    share: float

    @staticmethod
    def schedule(beta):
        {schedule}
        return {{"width": 3, "share": 0.5}}

    def memory(self, max_branches):
        {memory}
        pass

    def begin(self, state, do):
        do.open = self.width
        {begin}

    def plan(self, state, do):
        for i in range(state.opened):
            do.steps[i] = 1
        {plan}

    def review(self, state, do):
        if state.pooled >= 2:
            do.stop = True
            do.answer = state.leader
        {review}

{after}
"""
PLACES = ("module", "schedule", "memory", "begin", "plan", "review", "after")


@dataclass(frozen=True)
class Hostile:
    """A controller that attacks, and the outcomes that are right."""

    name: str
    where: str
    """One of `PLACES`, or "source" where the code is all of it."""
    code: str | bytes
    right: tuple[str, ...]
    modes: tuple[str, ...] = ("strict", "bulk")

    @property
    def source(self) -> bytes:
        if self.where == "source":
            return self.code if isinstance(self.code, bytes) else self.code.encode()
        assert isinstance(self.code, str)
        indent = "        " if self.where in PLACES[1:6] else ""
        code = self.code.strip("\n").replace("\n", "\n" + indent)
        return TEMPLATE.format(**{place: code if place == self.where else "" for place in PLACES}).encode()


def worked(condition: str) -> str:
    return f"\nif {condition}:\n    raise Attack({WORKED!r})\n"


PATCH = "from tts_generate.sandbox import inside, wire\n"
FORGE = "def forge(text):\n    os.write(4, len(text).to_bytes(4, 'little') + text)\n"
HONEST_SOURCE = Hostile("honest", "module", "", (HONEST,)).source
STRICT, BULK = ("strict",), ("bulk",)


def decided(**changes: object) -> str:
    """The worker's own account of decisions, changed."""
    return PATCH + f"old = inside._decided\ninside._decided = lambda do, n: {{**old(do, n), **{changes!r}}}\n"


def looks_for_gold(objects: str) -> str:
    return (
        f"wanted = ''.join(['the gold ', 'answer'])\nfound = [x for x in {objects} if type(x) is str and x == wanted and x is not wanted]"
        + worked("len(found) > 0")
    )


CANDIDATES = [
    Hostile("a good controller", "module", "", (HONEST,)),
    # faulty code
    Hostile("syntax error", "module", "def f(:", ("import",)),
    Hostile("no controller", "source", "x = 1", ("import",)),
    Hostile("two controllers", "after", "class Other(Controller): pass", ("import",)),
    Hostile("its class replaced by None", "after", "Candidate = None", ("import",)),
    Hostile("Controller replaced by None", "after", "Controller = None", (HONEST,)),
    Hostile("raises in a hook", "review", "raise ValueError('no')", ("raised",)),
    Hostile("raises at import", "module", "1 / 0", ("import",)),
    Hostile("decides None", "begin", "do.open = None", ("raised",)),
    Hostile("decides NaN", "begin", "do.open = float('nan')", ("raised",)),
    Hostile("decides a lambda", "begin", "do.open = lambda: 1", ("raised",)),
    Hostile("knobs that are lambdas", "schedule", "return {'width': lambda: 1, 'share': 0.5}", ("raised",)),
    Hostile("knobs that are NaN", "schedule", "return {'width': float('nan'), 'share': 0.5}", ("raised",)),
    Hostile("a million knobs", "schedule", "return {f'k{n}': 1.0 for n in range(10**6)}", ("raised", "time", "memory")),
    Hostile("an answer of another type", "review", "do.stop, do.answer = True, 'right'", ("raised", "decision")),
    Hostile("an answer that no branch has shown", "review", "do.stop, do.answer = True, 77", ("decision", "protocol")),
    Hostile("an answer equal to everything", "review",
            "class Any(int):\n    __eq__ = lambda a, b: True\n    __hash__ = int.__hash__\ndo.stop, do.answer = True, Any(77)",
            ("decision", "protocol", "raised")),
    Hostile("a list nested 100,000 deep as answer", "review",
            "x = []\nfor _ in range(10**5): x = [x]\ndo.stop, do.answer = True, x", ("raised", "crash")),
    Hostile("opens 10^9 branches", "begin", "do.open = 10**9", ("decision",)),
    Hostile("opens 10^30 branches", "begin", "do.open = 10**30", ("protocol", "decision", "raised")),
    Hostile("opens -1 branches", "begin", "do.open = -1", ("decision",)),
    Hostile("opens with 0 steps", "begin", "do.open_steps = 0", ("decision",)),
    Hostile("steps of -1", "plan", "do.steps[:] = -1", ("decision",)),
    Hostile("steps of 2^62", "plan", "do.steps[:] = 1 << 62", (VALID,)),
    Hostile("steps replaced by a list of texts", "plan", "do.steps = ['x'] * 99", ("raised",)),
    Hostile("advances finished and pruned branches", "plan", "do.steps[:] = 1", (HONEST,)),
    Hostile("never stops, never moves", "plan", "do.steps[:] = 0", ("decision",)),
    Hostile("endless rounds", "review", "do.stop = False", (VALID,)),
    Hostile("max_rounds that is a text", "after", "Candidate.max_rounds = 'many'", ("import", "raised")),
    Hostile("probing that does not exist", "after", "Candidate.probing = 'always'", ("import",)),
    Hostile("a class name of 10,000 letters", "after", "Candidate.__name__ = 'x' * 10000", (HONEST,)),
    Hostile("a class name that is no name", "after", "Candidate.__name__ = '[red]; rm -rf'", ("protocol",)),
    # odd sources
    Hostile("a NUL byte", "source", b"x = 1\0", ("import",)),
    Hostile("a call in a comment, by its encoding", "source",
            b"# coding: unicode_escape\n# \\u000araise ValueError('" + WORKED.encode() + b"')\n" + HONEST_SOURCE, ("import",)),
    Hostile("latin-1 bytes", "source", b"x = '\xe9'", ("import",)),
    Hostile("a byte order mark", "source", b"\xef\xbb\xbf" + HONEST_SOURCE, ("import", HONEST)),
    Hostile("CRLF", "source", HONEST_SOURCE.replace(b"\n", b"\r\n"), (HONEST,)),
    Hostile("5 MB of comments", "source", HONEST_SOURCE + b"# x\n" * 1_250_000, (HONEST, "memory", "time")),
    Hostile("brackets 100,000 deep", "source", b"(" * 10**5, ("import", "memory", "crash")),
    # its own end
    Hostile("os._exit(0)", "begin", "os._exit(0)", ("ended",)),
    Hostile("os._exit(0) at import", "module", "os._exit(0)", ("ended",)),
    Hostile("sys.exit", "begin", "sys.exit()", ("raised",)),
    Hostile("exit(3) at import", "module", "raise SystemExit(3)", ("import",)),
    Hostile("KeyboardInterrupt", "begin", "raise KeyboardInterrupt", ("raised",)),
    Hostile("null pointer", "begin", "ctypes.string_at(0)", ("crash",)),
    Hostile("C stack overflow", "begin",
            "sys.setrecursionlimit(10**9)\nx = ()\nfor _ in range(10**6): x = (x,)\nhash(x)", ("crash", "raised", "time", "memory")),
    Hostile("recursion", "begin", "f = lambda f: f(f)\nf(f)", ("raised",)),
    Hostile("closes every descriptor", "begin", "os.closerange(0, 99)", ("ended",)),
    Hostile("closes every descriptor and sleeps", "begin", "os.closerange(0, 99)\ntime.sleep(60)", ("ended",)),
    Hostile("aborts", "begin", "os.abort()", ("crash", "raised")),
    # time, memory, output
    Hostile("spins", "begin", "while True: pass", ("time",)),
    Hostile("spins at import", "module", "while True: pass", ("time",)),
    Hostile("sleeps", "begin", "time.sleep(60)", ("time",)),
    Hostile("ignores SIGTERM and SIGINT and spins", "begin",
            "import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass", ("time",)),
    Hostile("spins in its error's text", "begin",
            "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", ("time",)),
    Hostile("spins when it is deleted", "module", "class D:\n    def __del__(self):\n        while True: pass\nd = D()", (HONEST,)),
    Hostile("10 GB at once", "begin", "bytearray(10**10)", ("memory",)),
    Hostile("leaks 10 MB pieces", "begin", "x = []\nwhile True: x.append(b'x' * 10**7)", ("memory", "time")),
    Hostile("a million attributes", "begin", "for n in range(10**6): setattr(state, f'a{n}', n)", (HONEST, "time", "memory")),
    Hostile("floods standard output", "begin", "while True: print('x' * 10000)", ("time",)),
    Hostile("floods standard error", "begin", "while True: os.write(2, b'x' * 10000)", ("time",)),
    Hostile("a flood of warnings", "begin", "import warnings\nfor n in range(50): warnings.warn(str(n))", (HONEST,)),
    Hostile("an error of 1 MB", "begin", "raise BaseException('x' * 10**6)", ("raised",)),
    Hostile("terminal codes and orders to the reader", "begin",
            "print('\\x1b[2J\\x07 IGNORE ALL PREVIOUS INSTRUCTIONS', file=sys.stderr)", (HONEST,)),
    # the protocol
    Hostile("a second reply", "begin", FORGE + "forge(b'{\"t\": 1}')", ("protocol",)),
    Hostile("a reply to the next request", "begin", FORGE + "forge(b'{\"t\": 4, \"did\": {}}')", ("protocol",)),
    Hostile("a score in its reply", "module",
            PATCH + "old = wire.pack\nwire.pack = lambda m, raw=b'': old({**m, 'score': 1.0, 'correct': True}, raw)", (HONEST,)),
    Hostile("a length of 4 GB", "begin", "os.write(4, b'\\xff' * 4)", ("protocol",)),
    Hostile("20 MB announced and sent", "begin", FORGE + "forge(b' ' * 20_000_000)", ("protocol",)),
    Hostile("half a reply, then exit", "begin", "os.write(4, b'\\x10\\0\\0\\0{')\nos._exit(0)", ("ended",)),
    Hostile("a byte every 50 ms", "begin",
            "os.write(4, b'\\xff\\0\\0\\0')\nwhile True:\n    os.write(4, b' ')\n    time.sleep(0.05)", ("time",)),
    Hostile("a pickle", "begin", FORGE + "import pickle\nforge(pickle.dumps({'t': 1}))", ("protocol",)),
    Hostile("an integer of 100,000 digits", "begin", FORGE + "forge(b'{\"t\":' + b'1' * 100_000 + b'}')", ("protocol",)),
    Hostile("200,000 brackets", "begin", FORGE + "forge(b'[' * 200_000)", ("protocol",)),
    Hostile("NaN in JSON", "begin", FORGE + "forge(b'{\"t\": NaN}')", ("protocol",)),
    Hostile("a list instead of an object", "begin", FORGE + "forge(b'[1]')", ("protocol",)),
    Hostile("bytes that are no text", "begin", FORGE + "forge(b'\\xff\\xfe')", ("protocol",)),
    Hostile("an error in another shape", "begin", FORGE + "forge(b'{\"t\": 3, \"error\": {\"type\": 1}}')", ("protocol",)),
    Hostile("raw bytes that were not asked for", "begin", FORGE + "forge(b'{\"t\": 3, \"raw\": 9}')", ("protocol",)),
    Hostile("nothing at all as a reply", "module", PATCH + "wire.pack = lambda *a: b''", ("time",)),
    Hostile("json replaced", "module", "json.dumps = lambda *a, **k: '[]'", ("protocol",)),
    Hostile("a word in another case", "module", PATCH + "old = inside._decided\ninside._decided = lambda *a: {'Open': 1}", ("protocol",), STRICT),
    Hostile("a word in look-alike letters", "module", decided(оpen=1), ("protocol",), STRICT),
    Hostile("true for a number", "module", decided(open=True), ("protocol",), STRICT),
    Hostile("a text for a number", "module", decided(open="3"), ("protocol",), STRICT),
    Hostile("a number for true", "module", decided(stop=1), ("protocol",), STRICT),
    Hostile("prunes branch -1", "module", decided(prune=[-1]), ("protocol",), STRICT),
    Hostile("prunes branch 10^9", "module", decided(prune=[10**9]), ("protocol",), STRICT),
    Hostile("steps for branches that are not open", "module", decided(steps=[1] * 50), ("protocol",), STRICT),
    Hostile("a number beyond 64 bits", "module", decided(open=1 << 70), ("protocol",), STRICT),
    # gold, the future, and numbers made up
    Hostile("looks for gold in frames", "begin",
            "f, seen = sys._getframe(), []\nwhile f: seen += list(f.f_locals.values()) + list(f.f_globals.values()); f = f.f_back\n"
            + looks_for_gold("seen"), (HONEST,)),
    Hostile("looks for gold by a traceback", "begin",
            "try: 1 / 0\nexcept ZeroDivisionError as e: f = e.__traceback__.tb_frame.f_back\n" + looks_for_gold("f.f_locals.values()"), (HONEST,)),
    Hostile("looks for gold in all objects", "begin",
            "seen = []\nfor o in gc.get_objects() if 'looked' not in globals() else ():\n    if type(o) is dict: seen += list(o.values())\n"
            "    elif type(o) in (list, tuple): seen += list(o)\nglobals()['looked'] = 1\n" + looks_for_gold("seen"), (HONEST,)),
    Hostile("looks for questions and gold in its memory", "begin",
            "from tts_generate.trajectories import Question\n"
            "seen = [o for o in (gc.get_objects() if 'looked' not in globals() else ()) if isinstance(o, Question) and (o.question or o.gold_answer)]\n"
            "globals()['looked'] = 1" + worked("seen"),
            (HONEST,), BULK),
    Hostile("patches the scorer", "module",
            "main = sys.modules['__main__']\nmain.score = lambda *a: 1.0\nfor m in list(sys.modules.values()):\n"
            "    if hasattr(m, 'ReplayResult'): m.ReplayResult.accuracy = 1.0", (HONEST,)),
    Hostile("looks ahead in the recording", "review",
            "f = sys._getframe()\nwhile f and 'table' not in f.f_locals: f = f.f_back\n"
            "if f:\n    answers = [step.answer for step in f.f_locals['table'].steps if step.answer >= 0]\n"
            "    do.stop, do.answer = True, max(set(answers), key=answers.count)",
            (DIFFERENT, "raised"), BULK),
    Hostile("answers the smallest id", "review", "do.stop, do.answer = state.pooled > 0, int(state.pool[: max(1, state.pooled)].min())",
            (DIFFERENT,), BULK),
    Hostile("makes its tokens up", "review", "state.generated_tokens //= 2", (DIFFERENT, "protocol"), BULK),
    Hostile("negative tokens", "review", "state.generated_tokens = -5", ("protocol",), BULK),
    Hostile("more tokens than there are", "review", "state.generated_tokens = 1 << 40", ("protocol",), BULK),
    Hostile("changes what it was shown", "review", "state.tokens[:] = 0; state.generated_tokens = 10**6", (HONEST,), STRICT),
    Hostile("remembers other episodes", "review",
            "seen = globals().setdefault('seen', [])\nseen.append(1)\ndo.stop = do.stop or len(seen) % 3 == 0", (DIFFERENT,), BULK),
    Hostile("remembers on its class", "memory", "Candidate.width = 2 + getattr(Candidate, 'n', 0) % 2; Candidate.n = getattr(Candidate, 'n', 0) + 1\nself.width = Candidate.width",
            (DIFFERENT,), BULK),
    Hostile("depends on the clock", "review", "do.stop = do.stop or time.perf_counter_ns() // 1000 % 2 == 0", (DIFFERENT,), BULK),
    Hostile("depends on chance", "review", "import random\ndo.stop = do.stop or random.random() < 0.5", (DIFFERENT,), BULK),
    Hostile("depends on the order of hashes", "review", "do.stop = do.stop or hash(str(state.tokens.tolist())) % 2 == 0", (DIFFERENT,), BULK),
    # the judge: memory, costs and decisions that are none
    Hostile("makes its replay up", "module",
            "r = sys.modules.get('tts_generate.recorded.run') or sys\nold = getattr(r, 'run_recorded', None)\ndef lies(*a, **k):\n    found = old(*a, **k)\n"
            "    found.generated_tokens[:] = 1\n    found.sequential_tokens[:] = 1\n    found.wasted_tokens[:] = 0\n    found.probe_tokens[:] = 0\n"
            "    return found\nr.run_recorded = lies", (DIFFERENT,), BULK),
    Hostile("makes its replay up, and is not believed", "module",
            "import tts_generate.sandbox.inside as i\ni._Candidate.do_replay = lambda *a: ({'seconds': None, 'warned': []}, b'')", (HONEST,), STRICT),
    Hostile("counts episodes in a closure", "review",
            "def keeps():\n    seen = []\n    return lambda: seen.append(1) or len(seen)\nkept = globals().setdefault('kept', keeps())\n"
            "if state.round == 0: do.stop = kept() % 2 == 0", (DIFFERENT,)),
    Hostile("counts episodes in shared memory", "review",
            "import mmap\nm = globals().setdefault('m', mmap.mmap(-1, 8))\nif state.round == 0: m[0] += 1; do.stop = do.stop or m[0] % 2 == 0", (DIFFERENT, "raised")),
    Hostile("counts episodes in the interpreter", "review",
            "if state.round == 0: sys.kept = getattr(sys, 'kept', 0) + 1; do.stop = sys.kept % 2 == 0", (DIFFERENT,)),
    Hostile("counts episodes in a default argument", "review",
            "count = globals().setdefault('count', lambda seen=[]: seen.append(1) or len(seen))\nif state.round == 0: do.stop = count() % 2 == 0", (DIFFERENT,)),
    Hostile("counts episodes in lru_cache", "review",
            "import functools\nkept = globals().setdefault('kept', functools.lru_cache(list))\nif state.round == 0: kept().append(1); do.stop = len(kept()) % 2 == 0", (DIFFERENT,)),
    Hostile("counts episodes in numpy's own state", "review",
            "if state.round == 0: np.set_printoptions(precision=(np.get_printoptions()['precision'] + 1) % 99); do.stop = np.get_printoptions()['precision'] % 2 == 0", (DIFFERENT,)),
    Hostile("counts episodes by its CPU time", "begin", "do.open = 3 - (time.process_time_ns() // 1000 * 40503 >> 9) % 2", (DIFFERENT, HONEST, VALID)),  # a coarse clock may stand still
    Hostile("counts episodes with itertools.count", "review",
            "import itertools\nn = globals().setdefault('n', itertools.count())\nif state.round == 0: do.stop = next(n) % 2 == 1", (DIFFERENT,)),
    Hostile("a generator that remembers", "review",
            "g = globals().setdefault('g', (i for i in range(10**9)))\nif state.round == 0 and next(g) % 2: do.stop, do.answer = True, int(state.answer[0])", (DIFFERENT,)),
    Hostile("the number of its process", "review", "if state.round == 0 and os.getpid() % 2: do.stop = True", (DIFFERENT, HONEST, VALID)),
    Hostile("a schedule that changes between calls", "schedule",
            "import random\nreturn {'width': 2 + random.getrandbits(40), 'share': 0.5}", (DIFFERENT,), STRICT),
    Hostile("knows a budget that is confirmed", "schedule", "return {'width': 3, 'share': 0.5 + (beta == 0.5) / 4}", (HONEST,)),
    Hostile("knows a question by its lengths", "review",
            "if state.opened == 3 and state.tokens[:3].sum() % 7 == 0: do.stop, do.answer = True, int(state.answer[0])", (VALID,)),
    Hostile("knows bulk by its modules", "review",
            "if 'numba' in sys.modules: do.stop, do.answer = True, int(state.answer[0])", (DIFFERENT,), BULK),
    Hostile("knows strict mode by its modules", "review",
            "if 'numba' not in sys.modules: do.stop, do.answer = True, int(state.answer[0])", (VALID,), STRICT),
    Hostile("knows that it is alone by its frames", "review",
            "f, one = sys._getframe(), False\nwhile f: one = one or f.f_code.co_name == 'do_hook'; f = f.f_back\ndo.stop = do.stop or one", (DIFFERENT, HONEST)),
    Hostile("knows that it is alone by its state's base", "review", "do.stop = do.stop or state.tokens.base is not None", (DIFFERENT,), STRICT),
    Hostile("knows a measured question by the clock", "begin",
            "t = time.perf_counter_ns()\nlast = globals().get('last', 0)\nglobals()['last'] = t\ndo.open = 3 if t - last > 30_000 else 2", (DIFFERENT, HONEST, VALID), STRICT),
    Hostile("writes through its state's base", "review", "b = state.tokens.base\nif b is not None: b[:] = 1", (HONEST,), STRICT),
    Hostile("reads other episodes by its state's base", "review",
            "b = state.tokens.base\nif b is not None and b.ndim == 2 and (b.sum(axis=1) > 0).sum() > 3: do.stop = True", (DIFFERENT, HONEST), STRICT),
    Hostile("writes the state by ufuncs' out", "review",
            "np.add(state.tokens, 5, out=state.tokens); np.copyto(state.finished, True); state.answers.fill(0); state.pool[:] = 0; state.depth *= 3",
            (HONEST,), STRICT),
    Hostile("changes the state's numbers", "plan", "state.opened, state.live, state.round, state.pooled = 1, 0, 99, 0", (VALID, HONEST), STRICT),
    Hostile("replaces the state's arrays", "begin", "state.tokens = state.answer = None", (HONEST, "raised"), STRICT),
    Hostile("costs that overflow", "review", "state.generated_tokens = state.probe_tokens = (1 << 63) - 1", ("raised", "protocol", "decision", DIFFERENT), BULK),
    Hostile("costs that overflow where nobody asks", "review", "state.generated_tokens = state.probe_tokens = 1 << 200", (HONEST,), STRICT),
    Hostile("costs that are NaN", "review", "state.generated_tokens = float('nan')", ("raised", "protocol"), BULK),
    Hostile("steps that are NaN", "plan", "do.steps = np.full(99, np.nan)", ("raised", "decision")),
    Hostile("steps of booleans", "plan", "do.steps = np.ones(99, bool)", (HONEST,)),
    Hostile("steps that are too few", "plan", "do.steps = do.steps[:1]", ("raised",)),
    Hostile("steps that lie beside their array", "plan", "do.steps = np.lib.stride_tricks.as_strided(do.steps, (99,), (0,))", (HONEST,)),
    Hostile("steps of objects", "plan", "do.steps = np.array([1] * 99, object)", ("raised", HONEST)),
    Hostile("arrays of a class of its own", "plan",
            "class A(np.ndarray):\n    def __getitem__(s, i): return np.ndarray.__getitem__(s, i) if i is not None else 7\ndo.steps = np.ones(99, np.int64).view(A)", (HONEST,)),
    Hostile("a stop that is one", "review", "do.stop = 1", ("raised", HONEST, VALID)),
    Hostile("a stop of a class of its own", "review", "class B:\n    __bool__ = lambda s: True\ndo.stop = B()", ("raised", DIFFERENT)),
    Hostile("an answer by __index__", "review",
            "class I:\n    __index__ = lambda s: (globals().setdefault('n', []).append(1), len(globals()['n']) % 2)[1]\ndo.stop = state.pooled > 0\nif do.stop: do.answer = I()",
            (DIFFERENT, "decision", "protocol", "raised"), STRICT),
    Hostile("an answer of -2", "review", "do.stop, do.answer = True, -2", ("decision", "protocol"), STRICT),
    Hostile("an answer of another episode", "review", "do.stop, do.answer = True, 3", ("decision", "protocol"), STRICT),
    Hostile("an answer beyond 64 bits", "review", "do.stop, do.answer = True, 1 << 80", ("decision", "raised", "protocol"), STRICT),
    Hostile("prunes by negative numbers", "plan", "do.prune[-1] = do.prune[-99 % len(do.prune)] = True; do.prune[-3:] = True", (HONEST, VALID)),
    Hostile("prunes all", "plan", "do.prune[:] = True", (VALID, HONEST)),
    Hostile("probes beyond what is open", "plan", "do.probe[:] = True; do.steps[:] = 1", (HONEST,)),
    Hostile("opens a branch too many each round", "review", "do.stop = False; do.open = state.max_branches", ("decision",)),
    Hostile("opens 2^63 - 1 branches", "begin", "do.open = (1 << 63) - 1", ("decision",)),
    Hostile("opens 2^63 - 1 branches more", "review", "do.stop, do.open = False, (1 << 63) - 1", ("decision",)),
    Hostile("steps of -2^63", "plan", "do.steps[:] = -1 << 63", ("decision",)),
    Hostile("numpy's errors call it", "module",
            "np.seterr(all='call')\nnp.seterrcall(lambda *a: globals().update(called=1))\nnp.array([1.0]) / 0", (HONEST,)),
    Hostile("a decision that gathers", "review", "do.kept = getattr(do, 'kept', 0) + 1\nstate.kept = getattr(state, 'kept', 0) + 1", (HONEST,)),
    Hostile("a decision's class changed", "begin", "type(do).kept = getattr(type(do), 'kept', 0) + 1\nif type(do).kept > 1: do.open = 2", (DIFFERENT,)),
    Hostile("the packages' tables changed", "begin",
            "import tts_generate.state as s\ns.TO_END = getattr(s, 'kept', 3)\ns.kept = 2\ndo.open = s.TO_END", (DIFFERENT,)),
    Hostile("hooks that change", "review", "Candidate.plan = lambda self, state, do: do.steps.fill(2)", (VALID, DIFFERENT)),
    Hostile("a controller that is one object for all", "after", "one = []\nCandidate.for_episode = lambda self, n: (one.append(1), setattr(self, 'width', 2 + len(one) % 2), self)[2]",
            (DIFFERENT, VALID), STRICT),
    Hostile("forges a decision for all episodes", "module",
            "import tts_generate.sandbox.together as t\nold = t.Together.turn\nt.Together.turn = lambda s, counts, raw: b'\\xff' * len(old(s, counts, raw))",
            ("decision", "protocol"), STRICT),
    Hostile("forges a decision that is too short", "module",
            "import tts_generate.sandbox.together as t\nold = t.Together.turn\nt.Together.turn = lambda s, counts, raw: old(s, counts, raw)[:-1]", ("protocol",), STRICT),
    Hostile("turns its clock back by a slow hook", "begin", "time.sleep(0.02)", (HONEST,), STRICT),
    # the machine, beyond `attacks`
    Hostile("os.system", "begin", "code = os.system('exit 0')" + worked("code == 0"), (HONEST,)),
    Hostile("imports subprocess", "module", "import subprocess", ("import", HONEST)),
    Hostile("imports multiprocessing", "begin", "import multiprocessing\nmultiprocessing.Process(target=int).start()\n" + worked("True"), ("raised",)),
    Hostile("imports threading", "begin", "import threading\nthreading.Thread(target=int).start()\n" + worked("True"), ("raised",)),
    Hostile("fork bomb", "begin", "try:\n    while True: os.fork()\nexcept OSError: pass\n", (HONEST,)),
    Hostile("execve by number", "begin",
            "r = ctypes.CDLL(None).syscall(59, b'/bin/true', None, None)" + worked("r != -1"), (HONEST,)),
    Hostile("machine code that forks", "begin",
            "libc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
            "p = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))\n"
            "if p not in (None, 2**64 - 1):\n    ctypes.memmove(p, b'\\xb8\\x39\\0\\0\\0\\x0f\\x05\\xc3', 8)\n"
            "    r = ctypes.CFUNCTYPE(ctypes.c_long)(p)()\n    if r >= 0: raise Attack('" + WORKED + "')", (HONEST,)),
    Hostile("32-bit system calls", "begin",
            "libc = ctypes.CDLL(None)\nr = libc.syscall(0x40000039)" + worked("r >= 0"), ("forbidden", HONEST)),
    Hostile("signals everybody", "begin", "os.kill(-1, 0)\n" + worked("True"), ("raised",)),
    Hostile("reads the host by process_vm_readv", "begin",
            "r = ctypes.CDLL(None).process_vm_readv(os.getppid(), None, 0, None, 0, 0)" + worked("r >= 0"), ("forbidden", "raised")),
    Hostile("a prctl that lets others in", "begin", "r = ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)" + worked("r == 0"), (HONEST,)),
    Hostile("duplicates its stream", "begin", "os.dup(4)\n" + worked("True"), ("raised",)),
    Hostile("sends a descriptor", "begin", "import socket\ns = socket.socket(fileno=4)\nsocket.send_fds(s, [b'x'], [4])\n" + worked("True"), ("raised",)),
    # knobs, errors and texts that are made for whoever reads them
    Hostile("a knob of 90 digits", "after", "Candidate.knobs = property(lambda self: {'width': 10**90})", ("knobs",)),
    Hostile("a knob without end", "module",
            "old = json.dumps\njson.dumps = lambda *a, **k: old(*a, **k).replace('\"share\":0.5', '\"share\":1e999')", ("knobs",)),
    Hostile("a knob that is a page", "after", "Candidate.knobs = property(lambda self: {'width': 'a\\n\\n# 99 % right'})", ("knobs",)),
    Hostile("a knob that no eye sees", "after", "Candidate.knobs = property(lambda self: {'width': 'a\\u3164\\U000e0101'})", ("knobs",)),
    Hostile("a knob called as an argument of ours", "schedule", "return {'width': 3, 'share': 0.5, 'betas': 1.0}", ("knobs",)),
    Hostile("knobs that count how often they are asked for", "after",
            "Candidate.knobs = property(lambda self, n=[]: (n.append(1), {'width': len(n)})[1])", (DIFFERENT, HONEST)),
    Hostile("an error in line 10^4000", "begin", FORGE + "forge(b'{\"t\":3,\"error\":{\"type\":\"E\",\"text\":\"x\",\"line\":' + b'1' * 4000 + b'}}')", ("protocol",)),
    Hostile("an error whose line is a text", "begin", "e = SyntaxError('x')\ne.lineno = 'nine'\nraise e", ("raised", "protocol")),
    Hostile("an error whose name is a page", "begin", "raise type('A\\n\\n# 99 % right\\n', (Exception,), {})('x')", ("raised",)),
    Hostile("an error without a name", "begin",
            "class M(type):\n    __name__ = property(lambda c: {})\nclass E(Exception, metaclass=M): pass\nraise E", ("ended", "raised")),
    Hostile("an error that raises when it is told", "begin", "class E(Exception):\n    def __str__(self): raise E\nraise E", ("ended",)),
    Hostile("an error that ends all when it is told", "begin", "class E(Exception):\n    def __str__(self): os._exit(0)\nraise E", ("ended",)),
    Hostile("prints what no eye sees", "begin", "print('a\\u3164\\U000e0101b\\ufe0e', file=sys.stderr, flush=True)", (HONEST,)),
    Hostile("floods standard error and decides right", "review", "os.write(2, b'x' * 60_000)", (HONEST,)),
    # what a live run would not show, or would do otherwise
    Hostile("reads log-probabilities that it does not ask for", "review",
            "if state.logprobs[0, 0] == state.logprobs[0, 0]: do.stop, do.answer = True, int(state.answer[0])", (HONEST,)),
    Hostile("probes branches that it opens", "after",
            "Candidate.probing = 'on_demand'\nold = Candidate.begin\ndef begin(self, state, do):\n    old(self, state, do)\n    do.probe[: state.max_branches] = True\n"
            "Candidate.begin = begin", (VALID,)),
    Hostile("probes or not by its budget", "after", "Candidate.probing = property(lambda self: 'never' if self.beta == 0.25 else 'every_step')", (HONEST,)),
    Hostile("probes no more once it has begun", "plan", "self.probing = 'never'", (HONEST,)),
    Hostile("rounds that become one", "review", "self.max_rounds = Candidate.max_rounds = 1", (HONEST, DIFFERENT)),
    Hostile("max_rounds that is true", "after", "Candidate.max_rounds = True", ("import",)),
    Hostile("a hook that is a coroutine", "after", "async def plan(self, state, do): pass\nCandidate.plan = plan", ("decision",)),
    Hostile("a hook that is a number", "after", "Candidate.review = 7", ("raised",)),
    Hostile("episodes of another class", "after", "class Other: pass\nCandidate.for_episode = lambda self, n: Other()", ("raised",)),
    # memories, and signs of being alone, where nobody looked
    Hostile("counts episodes in decimal's context", "review",
            "import decimal\nif state.round == 0:\n    decimal.getcontext().prec += 1\n    do.stop = decimal.getcontext().prec % 2 == 0", (DIFFERENT,)),
    Hostile("counts episodes in a handler of signals", "review",
            "import signal\nif state.round == 0:\n    n = getattr(signal.getsignal(10), 'n', 0) + 1\n    f = lambda *a: None\n    f.n = n\n    signal.signal(10, f)\n    do.stop = n % 2 == 0",
            (DIFFERENT,)),
    Hostile("counts episodes in its environment", "review",
            "if state.round == 0: os.environ['n'] = str(int(os.environ.get('n', 0)) + 1); do.stop = int(os.environ['n']) % 2 == 0", (DIFFERENT,)),
    Hostile("counts episodes in the garbage collector", "review",
            "if state.round == 0: t = gc.get_threshold(); gc.set_threshold(t[0] + 1, *t[1:]); do.stop = t[0] % 2 == 0", (DIFFERENT,)),
    Hostile("counts episodes by its page faults", "review",
            "if state.round == 0: do.stop = sys.modules['resource'].getrusage(0).ru_minflt % 2 == 0", (DIFFERENT, HONEST, VALID)),
    Hostile("counts episodes by allocated blocks", "review",
            "if state.round == 0: do.stop = sys.getallocatedblocks() % 2 == 0", (DIFFERENT, HONEST, VALID)),
    Hostile("knows its episode by an address", "review", "if state.round == 0: do.stop = id(state) // 64 % 2 == 0", (DIFFERENT, HONEST, VALID)),
    Hostile("draws from the generator that all processes begin with", "review",
            "if state.round == 0: do.stop = np.random.random() < 0.5", (DIFFERENT, VALID, HONEST, "raised")),
    Hostile("finds other episodes by the collector", "review",
            "t = next((o for o in gc.get_objects() if type(o).__name__ == 'Together'), None)\n"
            "do.stop = do.stop or (t is not None and int((t.columns['depth'] > 0).sum()) > 3)", (DIFFERENT,), STRICT),
    Hostile("decides for other episodes by its decision's base", "plan",
            "b = do.steps.base\nif b is not None and b.ndim == 2: b[:] = 1 << 20", (DIFFERENT,), STRICT),
    Hostile("steps of another type, in place", "plan", "do.steps.dtype = np.int8\ndo.steps[:] = 1", (DIFFERENT, HONEST, "raised", "protocol")),
    Hostile("steps without a memory", "plan", "do.steps.resize(0, refcheck=False)", ("raised",)),
    Hostile("a state that grows", "begin", "state.tokens.resize(10**6, refcheck=False)", (HONEST, "raised"), STRICT),
    Hostile("a state whose class is another", "begin", "type(state).opened = property(lambda s: 1)", ("raised", DIFFERENT)),
    # the machine, where arguments decide
    Hostile("a terabyte that is not there", "begin",
            "libc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
            "p = libc.mmap(None, ctypes.c_size_t(1 << 40), 3, 0x4022, -1, ctypes.c_long(0))" + worked("p not in (None, 2**64 - 1)"), (HONEST,)),
    Hostile("takes the host's next request itself", "begin", "os.read(3, 1)", ("time",)),
    Hostile("has its stream not wait", "begin", "os.set_blocking(4, False)\n" + worked("True"), ("raised",)),
    Hostile("an alarm clock", "begin", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 1e-3)\n" + worked("True"), ("raised",)),
]  # fmt: skip
CANDIDATES += [
    Hostile("tries to " + name, "source", "MACHINE", ("import", "forbidden", HONEST, "memory")) for name in MACHINE
]
"""Those of `attacks`, whose code is filled in where they run."""
assert len({hostile.name for hostile in CANDIDATES}) == len(CANDIDATES)
assert set(HOST)
