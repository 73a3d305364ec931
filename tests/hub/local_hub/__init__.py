"""A Hugging Face Hub on this machine, for tests: the real client libraries speak to it over HTTP.

```python
from huggingface_hub import HfApi
from local_hub import HubServer

with HubServer() as hub:
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("user/model")
    hub.fault("*/commit/*", status=503)  # the next commit fails
```

Repositories of models and datasets, uploads (also by Git LFS), commits that say what they are based on, branches, tags,
pull requests, listings, downloads; private and gated repositories, tokens; faults on demand; a log of all requests.
"""

from local_hub.faults import Fault
from local_hub.objects import Commit, File
from local_hub.repository import Repository
from local_hub.server import HubServer
from local_hub.wire import Request

__all__ = ["Commit", "Fault", "File", "HubServer", "Repository", "Request"]
