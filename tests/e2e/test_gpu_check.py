import subprocess
import sys

from tests.e2e.commands import ROOT, environment


def test_the_checks_for_a_gpu_run_at_tiny_size_on_a_cpu(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/gpu_check.py"), "--tiny", "--device=cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines() if line.startswith("|")}
    assert {"codes", "dvae", "retrieval", "precision", "attention", "autoregressive", "full_size"} <= checks
