"""The gateway process."""

import os

# gRPC's fork handlers stop its threads at every fork; the gateway only ever forks to start another program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
