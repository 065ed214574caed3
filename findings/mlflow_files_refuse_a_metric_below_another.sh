#!/usr/bin/env bash
# MLflow's file store keeps a metric in a file of its name, so that it takes "loss" or "loss/train", but not both: the
# second raises "Not a directory", with the metric names that TensorBoard and W&B group by.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check mlflow-skinny==3.17.2
cd "$folder"
MLFLOW_ALLOW_FILE_STORE=true MLFLOW_DISABLE_TELEMETRY=true "$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version
from pathlib import Path

from mlflow import MlflowClient

print("mlflow-skinny", version("mlflow-skinny"))
client = MlflowClient(Path("runs").resolve().as_uri())
run = client.create_run(client.create_experiment("names")).info.run_id
for name in ("loss", "losses/train", "loss/train"):
    try:
        client.log_metric(run, name, 1.0)
        print(f"{name}: written")
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
        assert "Not a directory" in str(error)
assert set(client.get_run(run).data.metrics) == {"loss", "losses/train"}
PY
