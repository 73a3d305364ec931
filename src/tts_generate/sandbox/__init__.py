"""The sandbox: code of a controller that a model wrote, or that was fetched, replayed where it can do no harm.

    with Sandbox(Limits(seconds=60)) as box:              # SandboxUnavailable where no lock can be had
        print(box.line)                                   # one line: which locks are in force
        box.prepare(recordings)                           # once: compiles what all candidates share
        with box.candidate(source) as candidate:          # bulk: whole recordings without gold, compiled
            rows = candidate.knobs([0.0, 0.5, 1.0])       # what its schedule says
            found = candidate.replay(recording, beta=0.5, shuffles=20, first_shuffle=0)      # a ReplayResult
        box.confirm(source, [found], shuffles=20).require()   # the same decisions in strict mode, or CandidateError
        found = box.evaluate(source, recording, beta=0.5, shuffles=2, mode="strict")  # open, replay, close

        found = candidate.replays(recordings, betas, shuffles=60, threads=8)        # strict: a whole look at it

Every failure of a candidate is a `CandidateError` with a `reason`, a `line` where there is one, and its `output`.
Threads may share a sandbox, and run a candidate each. A candidate open in strict mode is a controller too
(`candidate.controller(beta=0.5)`), for `Recording.trace` and for `generate`.

**How.** A keeper process (`python -I -S`, empty environment, own session, no descriptors) imports what candidates may
use and never runs their code. For each candidate it forks a child, which takes its own session, gives up root's powers,
limits its memory, CPU time, files and processes, gives up files, TCP, sockets and signals by Landlock, and all system
calls but some 40 by seccomp. The keeper reads in /proc that this holds and tells the host, and only then the
candidate's code is sent. bubblewrap is put around the keeper where it works. A command prefix
puts a container around it instead.

**Bulk and strict.** A bulk candidate holds recordings, with questions and answer ids shuffled, so it could look ahead
or make its numbers up: bulk is the sieve of a search, and nothing that it says chooses a candidate or is reported.
Strict runs the episodes in the host, which counts, and sends what each step reveals. Each order of the branches, at
each budget, has a process of its own, forked anew, in which every question comes once: what one order of a question
shows is nowhere when the next one runs. From one question to another a memory could still reach. No answer is ever
said to be right, so there is little to learn; and a random part of the episodes of every replay is run again, each
alone in a process, and must come out the same. Whoever differs there in a share f of the episodes gets away with
probability (1 - f) ** n: n is 4 and 2 more for each budget on each recording, 128 at most.

**Covered**, each by tests that try it (`tests/search`, `tts-generate sandbox check`): your files, environment, network,
other processes and their memory; starting processes and threads, executing programs, more privileges; machine code of
its own (bulk mode allows executable pages, under the same filter); memory, CPU and wall time, floods of output;
processes that outlive the host; replies that are forged, malformed, endless or pickled; gold answers, which never
enter; what machine it is, and where its files lie, in so many words; in strict mode also the future, other orders
of a question, and costs that are made up, and as said before other questions, clocks and chance.

**Not covered**: faults of the kernel behind the calls that are allowed; side channels of the processor; the host being
stopped by a machine that has too little memory for it and its candidates; in bulk mode, cheating in so few episodes
that `confirm` misses it (see there); a controller whose writer had the recorded questions and put what it knows of them
into the code, by the lengths of their branches (judge it on questions kept aside, as a search does: its figures there
are honest); where our own files lie, which is in its memory and can be told in another spelling; texts in its errors
and its output, which are cleaned and cut, and still a candidate's words to whoever reads them, a language model
too. Texts of answers never enter: `state.text` is of no use, and methods in the published interface, which need it and
a thread, do not run here. Behind a command prefix, what the container lets through is the container's
affair where seccomp was left off. aarch64 is written and not run; other systems than Linux have none of it and are
refused.
"""

from tts_generate.sandbox.box import Sandbox
from tts_generate.sandbox.candidate import Candidate
from tts_generate.sandbox.channel import Limits
from tts_generate.sandbox.confirmation import Confirmation, Difference

__all__ = ["Candidate", "Confirmation", "Difference", "Limits", "Sandbox"]
