"""Process that runs a method once per request, see `lib.peers.serving`."""

import json
import subprocess
import time
from pathlib import Path

#: Working directory of the processes, in which they find the package ``lib``.
BENCHMARKS = Path(__file__).parents[2]
# After a run, idle threads spin for a while; the next method waits until they sleep.
SETTLING_SECONDS = 0.3


class Process:
    """Process of one method, which waits for requests; its result is saved in a file."""

    def __init__(self, command, folder, environment=None):
        self.result = folder / "result.npy"
        self._errors = folder / "errors.txt"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*map(str, command), str(self.result)],
                cwd=BENCHMARKS,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def run(self):
        """Run the method and return its ``seconds`` and its ``memory`` (MiB)."""
        time.sleep(SETTLING_SECONDS)
        try:
            print(file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(self._describe_failure())
        return json.loads(answer)

    def _describe_failure(self):
        lines = self._errors.read_text().strip().splitlines()
        return lines[-1] if lines else f"ended with status {self._process.wait()}"

    def stop(self):
        """End the process and wait for it."""
        self._process.communicate()
