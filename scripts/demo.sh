#!/usr/bin/env bash
# Run the whole loop on the embedded engines: dataset, training, transfer, picture. Arguments go to `loraloop demo`.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment requirements.lock requirements-dev.lock
exec "$python" -m loraloop demo "$@"
