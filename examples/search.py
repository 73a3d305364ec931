"""Search for a controller that beats CMC at equal cost, by replay alone, and use what was found.

python examples/record.py STORE
python examples/search.py STORE RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

from tts_generate.loading import load_controller
from tts_generate.search import Fidelity, Search, Setup, write_report

store, run = Path(sys.argv[1]), Path(sys.argv[2])
# A search of a second; leave these three out for one that is worth its minutes.
few = {
    "rungs": (Fidelity((0.0, 1.0), 2, 300),),
    "select": Fidelity((0.0, 1.0), 2, 5_000),
    "fresh": Fidelity((0.0, 1.0), 2, 0),
}
search = Search(Setup((store,), controller="worth", reference="cmc", seed=0, **few))
result = search.run(run, minutes=5, max_rounds=4)
gain = result["fresh"]["gain"]
low, high = gain["interval"]
print(
    f"{result['tried']} candidates; the best gains {gain['mean']:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
)
print(load_controller(run / "best", beta=0.5))  # a folder without code: it goes wherever a controller's name does
print(write_report(run))
