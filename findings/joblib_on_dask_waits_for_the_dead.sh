#!/usr/bin/env bash
# A task that kills its worker (a lack of memory does) is given up by Dask after some tries, with KilledWorker. joblib on
# Dask's backend is not told: it waits for that task without end, and without a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check joblib==1.6.0 distributed==2026.8.0
cat >"$folder/waits.py" <<'PY'
import os
import signal
import sys
import threading
from importlib.metadata import version

import dask
import joblib
from distributed import Client, KilledWorker, LocalCluster

SECONDS = 20


def dies(number):
    os.kill(os.getpid(), signal.SIGKILL)


def by_joblib(said):
    with joblib.parallel_config("dask"):
        try:
            joblib.Parallel(n_jobs=2)(joblib.delayed(dies)(i) for i in range(2))
        except Exception as error:
            said.append(type(error).__name__)


if __name__ == "__main__":
    print("joblib", version("joblib"), "| distributed", version("distributed"))
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    client = Client(cluster)
    try:
        client.submit(dies, 0).result(SECONDS)
    except KilledWorker:
        print("Dask, asked directly: KilledWorker")
    client.wait_for_workers(2)
    said = []
    thread = threading.Thread(target=by_joblib, args=(said,), daemon=True)
    thread.start()
    thread.join(SECONDS)
    print("joblib, of the same:", said or f"still waiting after {SECONDS} s")
    sys.stdout.flush()
    os._exit(bool(said) or not thread.is_alive())
PY
"$folder/env/bin/python" -W ignore "$folder/waits.py"
